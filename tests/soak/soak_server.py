"""`python -m service`, which also tells on SIGUSR2 what it keeps: a line of JSON on standard output."""

import gc
import json
import signal
import sys

import service.__main__


def kept() -> dict[str, int]:
    """How much the center remembers of clients, and how many objects there are at all."""
    from service.app import app

    center = app.center
    collections = (value for owner in (center, center.hub) for value in vars(owner).values())
    remembered = sum(len(value) for value in collections if isinstance(value, dict | set | list))
    gc.collect()
    return {"remembered": remembered, "objects": len(gc.get_objects())}


def tell(*_: object) -> None:
    sys.stdout.write(json.dumps(kept()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, tell)
    service.__main__.main()
