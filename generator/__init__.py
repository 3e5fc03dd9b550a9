"""From one deploy.yaml to a complete, verified deployment bundle: load, check, render, write."""

from service import __version__ as __version__
