"""One archive of code, wheels and deployment, for hosts without a network."""
