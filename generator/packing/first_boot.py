"""What a new machine runs at its first boot: fetch an archive of `wsbundle bundle`, compare it, and install it.

It is written into user data and runs alone, with the Python that cloud-init brings. It can be run again and again.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

URL, SHA256, DIRECTORY = "", "", ""  # written by generator.packing.cloud_init
HERE = Path(__file__).resolve().parent
PATIENCE_S = 300.0  # the network of a new machine, and the server of the archive, may not be there at once
_PAUSE_S = 5.0
_LATER = (408, 425, 429)  # too late, too early, too often: as where many machines boot at once. Source: RFC 9110, 6585
_SOON_S = 60.0  # without one byte
_PIECE = 1 << 18


class FirstBootError(Exception):
    """It cannot go on; says why."""


def main() -> int:
    os.environ["HOME"] = "/root"  # cloud-init gives it none
    os.umask(0o022)
    try:
        _take_turns()
        if not (HERE / DIRECTORY).is_dir():
            _unpack(_fetched(HERE / f"{DIRECTORY}.part"))
        code = subprocess.run(["sh", "install", *sys.argv[1:]], cwd=HERE / DIRECTORY, check=False).returncode
        why = f"`sh install` ended with {code}; its lines above say why" if code else ""
    except (FirstBootError, OSError) as error:
        why = str(error)
    if why:
        again = f"sudo python3 -I {Path(__file__).resolve()}"
        print(f"wsbundle: this machine is not set up: {why}. To try again: {again}", file=sys.stderr, flush=True)
    return 1 if why else 0


def _take_turns() -> None:
    """Until this process ends: one that is run by hand must not fetch into the file of that at boot.

    Nobody but root can open this script, and hold it up.
    """
    own = os.open(__file__, os.O_RDONLY)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("  waiting for another run of this script", flush=True)
        fcntl.flock(own, fcntl.LOCK_EX)


def _fetched(file: Path) -> Path:
    """The archive, as it was made; readable by root alone, since it has the values of `env`."""
    began, said = time.monotonic(), ""
    while True:
        try:
            digest = _download(file)
            break
        except (OSError, HTTPException) as error:  # also a URLError, and an HTTPError
            why = str(getattr(error, "reason", error))
            is_final = isinstance(error, HTTPError) and error.code < 500 and error.code not in _LATER
            if is_final or time.monotonic() > began + PATIENCE_S:
                raise FirstBootError(f"the archive could not be fetched: {why}") from None
        if why != said:
            said = why
            print(f"  waiting for the archive, for {PATIENCE_S / 60:g} minutes at most: {why}", flush=True)
        time.sleep(_PAUSE_S)
    if digest != SHA256:
        file.unlink()
        raise FirstBootError(f"what the URL leads to is not the archive: its SHA-256 is {digest} and not {SHA256}")
    _say("fetch the archive", began)
    return file


def _download(file: Path) -> str:
    """Fetch it, and say every few seconds how far it is; its SHA-256."""
    digest, size, told = sha256(), 0, time.monotonic()
    with urllib.request.urlopen(URL, timeout=_SOON_S) as answer, _private(file) as copy:
        if URL.startswith("https:") and not answer.url.startswith("https:"):
            raise FirstBootError("its URL leads to one without TLS")
        whole = int(answer.headers.get("Content-Length") or 0)
        while piece := answer.read(_PIECE):
            copy.write(piece)
            digest.update(piece)
            size += len(piece)
            if time.monotonic() > told + _PAUSE_S:
                told = time.monotonic()
                print(f"  {size / 1e6:.1f} MB of the archive are here", flush=True)
    if size < whole:
        raise OSError("the connection ended before the archive did")
    return digest.hexdigest()


def _private(file: Path) -> BinaryIO:
    return open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _unpack(archive: Path) -> None:
    """All of it or nothing: whoever finds the directory goes on with it."""
    began, beside = time.monotonic(), HERE / f"{DIRECTORY}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700)
    unpack = ["tar", "--extract", "--gzip", "--file", str(archive), "--directory", str(beside)]
    if subprocess.run(unpack, check=False).returncode or not (beside / DIRECTORY).is_dir():
        raise FirstBootError("the archive could not be unpacked")
    os.sync()  # also across a power failure
    (beside / DIRECTORY).rename(HERE / DIRECTORY)
    beside.rmdir()
    archive.unlink()
    _say("unpack it", began)


def _say(step: str, began: float) -> None:
    print(f"  done   {time.monotonic() - began:6.1f} s  {step}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
