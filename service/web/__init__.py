"""What the service answers over HTTP, beside handshakes: to scripts, and about itself."""
