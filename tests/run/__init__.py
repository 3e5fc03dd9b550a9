"""Rendered deployments, run on this machine."""
