"""When a connection to the engine that was lost, or not made, is tried again. Pure."""

# Soon at first, in seconds.
SOON_S = (0.05, 0.1, 0.2, 0.5, 1.0)
# An engine that refuses us, and will until somebody changes something.
REFUSED_S = 10.0


class Retries:
    """How often it was tried in vain for one reason after another."""

    def __init__(self) -> None:
        self._tries = 0
        self._was_refused = False

    def pause_s(self, *, refused: bool, lasted_s: float) -> float:
        """How long to wait after a connection that lasted so long; 0 when there was none.

        It begins soon again after one that was of use, or when the reason is another one. One that ends each time as
        soon as it is made was of no use.
        """
        if refused != self._was_refused or lasted_s > SOON_S[-1]:
            self._tries = 0
        self._was_refused = refused
        self._tries += 1
        return REFUSED_S if refused else SOON_S[min(self._tries, len(SOON_S)) - 1]
