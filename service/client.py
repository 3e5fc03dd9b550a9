"""`python service/client.py`: the command of clients/python, as the guide starts it. Nothing on a host runs it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients/python"))

from wsbundle_client.client import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
