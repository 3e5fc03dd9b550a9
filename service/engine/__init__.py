"""Other hosts: how the workers of all hosts hear of each other over an engine, Valkey or Redis."""
