#!/usr/bin/env bash
# What a connection to a SQLite database in WAL mode sees while it has a cursor whose rows nobody has read to the end, as
# after `cursor.fetchone()`.
#
# Guess: each SELECT sees what others have committed before it. There is no transaction: `isolation_level` is None,
# `in_transaction` is False, and `commit()` was called too.
# Seen with SQLite 3.40.1 under Python 3.6 to 3.13: as long as the cursor is there, every SELECT of that connection, of
# other cursors too, sees the database as it was at the first row, for hours if need be. No checkpoint can empty the WAL
# file meanwhile, so that it grows. And once another connection has written, an INSERT of this one fails with `database is
# locked` at once, whatever its `timeout`, for nobody holds a lock. Closing the cursor, or a LIMIT, mends all three.
# Run by hand: bash findings/sqlite-cursor-not-read-to-its-end.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >drive.py <<'PYTHON'
import os, sqlite3, sys, time

print(f"SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}")
others = sqlite3.connect("database", isolation_level=None)
others.execute("pragma journal_mode = wal")
others.execute("create table orders (number integer)")
others.executemany("insert into orders values (?)", [(number,) for number in range(5)])


def outcome(query):
    """What becomes of a connection that has asked this and taken one row, when others write on."""
    connection = sqlite3.connect("database", isolation_level=None, timeout=5)
    cursor = connection.execute(query)
    cursor.fetchone()
    before = connection.execute("select count(*) from orders").fetchone()[0]
    others.execute("begin")
    others.executemany("insert into orders values (?)", [(number,) for number in range(1000)])
    others.execute("commit")
    connection.commit()
    new = connection.execute("select count(*) from orders").fetchone()[0] - before
    emptied = others.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0
    began = time.monotonic()
    try:
        connection.execute("insert into orders values (0)")
        written = "yes"
    except sqlite3.OperationalError as error:
        written = f"{error}, {'at once' if time.monotonic() - began < 1 else 'after a while'}"
    found = connection.in_transaction, new, emptied, written
    cursor.close()
    connection.close()
    return found


same = True
for query, expected in (
    ("select number from orders", (False, 0, False, "database is locked, at once")),
    ("select number from orders limit 1", (False, 1000, True, "yes")),
):
    found = outcome(query)
    same &= found == expected
    print(f"{query}: in_transaction {found[0]}, sees {found[1]} of 1000 new rows, WAL emptied {found[2]}, may write: {found[3]}")
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
