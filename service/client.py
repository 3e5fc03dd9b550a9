"""`python service/client.py`: the command of clients/python, as the guide starts it. Nothing on a host runs it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients/python"))

try:
    from wsbundle_client.command import run
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    run()
