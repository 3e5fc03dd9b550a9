"""Stores messages in a database until it has stored enough, and says after each commit how many are stored.

    python -m tests.service.mailbox_writer DIRECTORY SYNC COMMITS

Run under strace(1), what it wrote, synced and said stands in one list, in order.
"""

import os
import sys
from pathlib import Path

from service.core.addresses import Address
from service.core.mailbox import Kept, Kind, Letter
from service.mailbox.database import Database
from service.mailbox.ledger import Ledger
from service.settings import Mailbox

BATCH = 7
BOX = Address("bob")


def main() -> None:
    directory, sync, commits = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    settings = Mailbox(keep="disk", directory=str(directory), messages=1_000_000, bytes=1024**3)
    database = Database(directory, sync)
    number = 0
    for commit in range(commits):
        database.writing.execute("begin immediate")
        ledger = Ledger(database.writing, settings, database.now())
        if not commit:
            ledger.open(BOX, None)
        for _ in range(BATCH):
            letter = Letter(BOX, Address("alice"), Kind.JSON, b"%d" % number + b" " * (number % 900))
            assert ledger.keep(letter) is Kept.STORED
            number += 1
        ledger.finish()
        database.writing.execute("commit")
        os.write(1, b"told %d\n" % number)


if __name__ == "__main__":
    main()
