"""From one deploy.yaml to a complete, verified deployment bundle: load, check, render, write."""

__version__ = "0.1.0"
