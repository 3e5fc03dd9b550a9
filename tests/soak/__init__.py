"""Crowds, and what they leave behind."""
