"""User data with which a new virtual machine installs an archive by itself. No secret is in it.

Source: https://cloudinit.readthedocs.io/en/latest/reference/modules.html, "Runcmd", "Write Files".
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from generator.config.schema import Deploy, keys_file
from generator.packing.archive import Archive
from generator.report import UsageError
from service.declaration import values_of

FIRST_BOOT = Path(__file__).with_name("first_boot.py")
PLACE = "/usr/local/src"
_BLANK = 'URL, SHA256, DIRECTORY = "", "", ""  # written by generator.packing.cloud_init\n'
# Files of the operator's own that must be on the machine, by the settings that name them.
_OWN_FILES = ("certificate.file", "certificate.key", "engine.ca", "engine.cert", "engine.key", "engine.password_file")


def checked(url: str) -> str:
    """The URL that an archive, or a directory of archives, is fetched from.

    Raises:
        UsageError
    """
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise UsageError(f"--cloud-init {url!r} has letters that no URL has; write them as %XX, a space as %20")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"--cloud-init {url} is not a URL ({error}); give one such as https://example.org/") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise UsageError(f"--cloud-init {url} is not where a machine fetches it; give a URL that begins with https://")
    if parts.username is not None or parts.password is not None:
        raise UsageError("--cloud-init has a password in its URL, and every program of the machine reads user data")
    if parts.fragment:
        raise UsageError(f"--cloud-init {url} has a fragment, which no server gets; leave out #{parts.fragment}")
    return url


def place_of(url: str, file: str) -> str:
    """Where the archive will be: a URL that ends with a slash is its directory."""
    parts = urlsplit(url)
    path = parts.path or "/"
    return parts._replace(path=path + quote(file)).geturl() if path.endswith("/") else url


def cloud_config(deploy: Deploy, archive: Archive, url: str) -> str:
    """The whole document: a script, and the command that runs it once, at the first boot."""
    text = FIRST_BOOT.read_text(encoding="utf-8")
    written = f"URL, SHA256, DIRECTORY = {url!r}, {archive.digest!r}, {archive.directory!r}\n"
    assert text.count(_BLANK) == 1
    script = f"{PLACE}/{deploy.name}/first-boot.py"
    comments = "".join(f"# {line}".rstrip() + "\n" for line in _comments(deploy, script))
    content = textwrap.indent(text.replace(_BLANK, written), " " * 6)
    return (
        f"#cloud-config\n{comments}"
        f'write_files:\n  - path: {script}\n    permissions: "0700"\n    content: |\n{content}'
        f"runcmd:\n  - [python3, -I, {script}]\n"
    )


def _comments(deploy: Deploy, script: str) -> Iterator[str]:
    yield f"At its first boot this machine fetches an archive, compares its SHA-256, and installs {deploy.name}."
    yield "Watch it on the console or in /var/log/cloud-init-output.log; wait for it with `cloud-init status --wait`,"
    yield f"which fails if it does. To try again: sudo python3 -I {script}"
    yield "Every program of a machine can read its user data, so no secret is in here, and none may be added."
    if files := needed(deploy):
        yield "These files must be on the machine before, from its image or by ssh; without them nothing is installed:"
        yield from (f"  {path} ({key})" for key, path in files)


def needed(deploy: Deploy) -> list[tuple[str, str]]:
    """Settings with the files of the operator's own that they name."""
    values = values_of(deploy)
    files = [(key, str(values[key])) for key in _OWN_FILES if values.get(key)]
    if deploy.auth == "token" and deploy.keys is not None:
        files.append(("keys", keys_file(deploy)))
    return files
