"""Bytes that break something."""
