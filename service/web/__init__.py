"""Plain HTTP, beside handshakes: publications of scripts, and answers about the service itself."""
