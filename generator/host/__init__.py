"""Everything about a host: its state, what is installed there, and how to get from one state to another."""
