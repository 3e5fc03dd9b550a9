"""What the benchmark of mailboxes prints, on a real disk."""

import pytest

from bench import mailbox


@pytest.mark.slow
def test_storing_and_reading_are_measured() -> None:
    text = mailbox.report(quick=True).text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["1", "8", "64", "256"]
    assert text.count("; goal ") == 5 - text.count("not measured")
