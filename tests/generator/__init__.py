"""Tests of generator/ and tools/."""
