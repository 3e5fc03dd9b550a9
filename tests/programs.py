"""Programs that a machine need not have for the tests."""

import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program is missing; the answer "not checked" has tests of its own."""
    return pytest.mark.skipif(
        shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is None,
        reason=f"{program} is not installed",
    )
