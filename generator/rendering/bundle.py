"""The rendered bundle: files as they will be on the host, and the manifest that lists them."""

from hashlib import sha256
from typing import Any

import msgspec

MANIFEST = "manifest.json"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the bundle.

    `path` is where it is on the host, without the leading slash; `template` what it was rendered from, relative
    to templates/. `installed` says whether the chosen server and manager use it. A symbolic link has its target in
    `link`, relative as symlink(7) reads it, and no text.
    """

    path: str
    template: str = ""
    text: str = ""
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    installed: bool = True
    link: str | None = None


class Bundle(msgspec.Struct, frozen=True):
    """All files of one deployment, in the order of their paths."""

    name: str
    files: tuple[File, ...]
    replaces: tuple[str, ...] = ()
    """What makes way for them on the host, by absolute path."""

    def manifest(self) -> str:
        """The manifest as JSON text: path, mode, owner, group and SHA-256 of every file, and whether it is used."""
        entries: list[dict[str, Any]] = []
        for file in self.files:
            entry: dict[str, Any] = {"path": file.path, "installed": file.installed}
            if file.link is not None:
                entry |= {"link": file.link}
            else:
                entry |= {
                    "mode": f"{file.mode:04o}",
                    "owner": file.owner,
                    "group": file.group,
                    "sha256": sha256(file.text.encode()).hexdigest(),
                }
            entries.append(entry)
        return msgspec.json.format(msgspec.json.encode({"name": self.name, "files": entries})).decode() + "\n"
