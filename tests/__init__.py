"""Tests, and what they need."""
