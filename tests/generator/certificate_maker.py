"""Real keys and certificates, made by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from generator.host.certificates import FILE, KEY

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Pair(NamedTuple):
    file: Path
    key: Path


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


def pair(directory: Path, names: str = "DNS:ws.a.org", subject: str = "/CN=Test", key: tuple[str, ...] = CURVE) -> Pair:
    """A self-signed certificate for 90 days, and its key; without names if `names` is empty."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Pair(directory / FILE, directory / KEY)
    named = ("-addext", f"subjectAltName={names}") if names else ()
    out = ("-out", made.file, "-keyout", made.key)
    openssl("req", "-x509", *key, "-nodes", "-days", 90, "-utf8", "-subj", subject, *named, *out)
    return made
