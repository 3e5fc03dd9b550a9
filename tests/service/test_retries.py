"""When the engine is tried again, in every order of what can happen."""

import pytest

from service.engine.retries import REFUSED_S, SOON_S, Retries

LOST, REFUSED, LASTED = (False, 0.0), (True, 0.0), (False, 60.0)


@pytest.mark.parametrize(
    ("ends", "pauses"),
    [
        ([LOST] * 7, [*SOON_S, SOON_S[-1], SOON_S[-1]]),
        ([REFUSED] * 3, [REFUSED_S] * 3),
        # Another reason: it begins anew.
        ([LOST, LOST, REFUSED, LOST, LOST], [*SOON_S[:2], REFUSED_S, *SOON_S[:2]]),
        # It was of use meanwhile.
        ([LOST, LOST, LASTED, LOST], [*SOON_S[:2], *SOON_S[:2]]),
        ([REFUSED, LASTED, LOST], [REFUSED_S, *SOON_S[:2]]),
        # Each time it is closed as soon as it is made.
        ([(False, 0.01)] * 3, [*SOON_S[:3]]),
        # It was of use, and then refused us, as after a change of the password.
        ([LASTED, (True, 60.0), LOST], [SOON_S[0], REFUSED_S, SOON_S[0]]),
    ],
)
def test_how_long_is_waited(ends: list[tuple[bool, float]], pauses: list[float]) -> None:
    retries = Retries()
    assert [retries.pause_s(refused=refused, lasted_s=lasted_s) for refused, lasted_s in ends] == pauses
