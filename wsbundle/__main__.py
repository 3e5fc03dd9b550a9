"""The command `wsbundle` of an installed wheel.

`tree` has the folders of the repository: `generator`, `service`, `templates` and others. These names are too common to
be importable by every program of the environment, so only this one looks there.
"""

import gc
import os
import sys

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tree")


def main() -> None:
    """Run the command; does not return."""
    # What root compiles where somebody else has installed this, its owner could neither replace nor remove.
    sys.dont_write_bytecode = os.geteuid() != os.stat(TREE).st_uid
    sys.path.insert(0, TREE)
    gc.disable()  # the process lives for a moment and builds no cycles worth a collection: a tenth of its time
    try:
        from generator.__main__ import run
    except KeyboardInterrupt:
        sys.exit(130)

    run()


if __name__ == "__main__":
    main()
