"""How many random inputs there are of a kind: as many as time allows, or EXAMPLES times as many."""

import os

import pytest

EXAMPLES = int(os.environ.get("EXAMPLES", "1"))


def seeds(fast: int, slow: int) -> "list[int | pytest.ParameterSet]":
    """Some for every run, and those that take longer."""
    later = range(fast, fast + slow * EXAMPLES)
    return [*range(fast), *(pytest.param(seed, marks=pytest.mark.slow) for seed in later)]
