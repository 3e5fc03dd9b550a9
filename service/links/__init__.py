"""What the shells that await have in common: a link to each client, and a bounded queue before it."""
