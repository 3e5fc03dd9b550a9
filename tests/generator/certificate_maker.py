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


def pair(
    directory: Path,
    names: str = "DNS:ws.a.org",
    subject: str = "/CN=Test",
    key: tuple[str, ...] = CURVE,
    days: int = 90,
) -> Pair:
    """A self-signed certificate, and its key; without names if `names` is empty."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Pair(directory / FILE, directory / KEY)
    named = ("-addext", f"subjectAltName={names}") if names else ()
    out = ("-out", made.file, "-keyout", made.key)
    openssl("req", "-x509", *key, "-nodes", "-days", days, "-utf8", "-subj", subject, *named, *out)
    return made


class Authority:
    """One that signs certificates: a root, or one below another."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory / name
        made = pair(self.directory, "", f"/CN={name}")
        self.file, self.key = made

    def below(
        self, name: str, may: str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign", days: int = 90
    ) -> "Authority":
        other = Authority(self.directory, name)
        self._sign(other.key, other.file, f"/CN={name}", may, days)
        return other

    def leaf(
        self,
        extension: str = "",
        key: tuple[str, ...] = CURVE,
        digest: str = "sha256",
        subject: str = "/CN=leaf",
    ) -> Pair:
        """A certificate for ws.a.org, for 90 days."""
        made = pair(self.directory / "leaf", key=key)
        self._sign(made.key, made.file, subject, f"subjectAltName=DNS:ws.a.org\n{extension}", 90, digest)
        return made

    def chained(self, leaf: Path, *others: Path) -> Path:
        """A file with a certificate, this authority's own behind it, and others behind that."""
        file = self.directory / "chained.pem"
        file.write_text("".join(path.read_text() for path in (leaf, self.file, *others)))
        return file

    def _sign(self, key: Path, file: Path, subject: str, extension: str, days: int, digest: str = "sha256") -> None:
        request, extensions = file.with_suffix(".request"), file.with_suffix(".extensions")
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
        extensions.write_text(extension + "\n")
        by = ("-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-extfile", extensions)
        openssl("x509", "-req", "-in", request, *by, "-days", days, f"-{digest}", "-out", file)
