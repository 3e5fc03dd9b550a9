"""For the shells that await: a link to each client, and a bounded queue before it."""
