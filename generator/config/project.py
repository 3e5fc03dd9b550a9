"""The files of an application of one's own, and what it needs of Python. `generator.config.sources` finds them."""

import os

import msgspec


class Project(msgspec.Struct, frozen=True):
    """The files of an application, relative to their directory.

    `requirements` is what pip reads, with all files that it names; `file` is where it reads that, if not from uv. Those
    `above` the directory are no files of the application; `place` is then the directory as seen from that of
    deploy.yaml, in which all of them are.
    """

    directory: str
    files: tuple[str, ...]
    requirements: str = ""
    file: str | None = None
    above: tuple[str, ...] = ()
    place: str = ""

    def id(self, *how: str) -> str:
        """Names the files, and how they are installed: the same ones in the same way have the same name."""
        from hashlib import sha256

        digest = sha256("\0".join(how).encode())
        for name in self.files:
            path = os.path.join(self.directory, name)
            is_link = os.path.islink(path)
            is_run = not is_link and os.access(path, os.X_OK)
            content = os.fsencode(os.readlink(path)) if is_link else _content(path)
            digest.update(f"\0{name}\0{is_run}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:12]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
