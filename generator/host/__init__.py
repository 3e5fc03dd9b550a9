"""All that concerns a host: what it is, what is installed there, and how it gets from one state to another."""
