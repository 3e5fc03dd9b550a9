"""What the benchmark of several hosts prints, with a real engine."""

import pytest

from bench import hosts, load
from bench.programs import MissingError


@pytest.mark.slow
def test_a_message_to_another_host_is_measured_beside_the_others() -> None:
    try:
        load.program()
        hosts.engine_program()
    except MissingError as error:
        pytest.skip(str(error))
    text = hosts.report(1, 0.2).text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    measured = [name for name in hosts.PEERS if f"{name}: not measured: " not in " ".join(text.split())]
    assert rows[2:] == [*hosts.WAYS, *measured]
    assert text.count("; goal ") == 2 + 2 * len(measured)
