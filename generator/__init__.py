"""From one deploy.yaml to a complete, verified deployment bundle: load, check, render, write."""
