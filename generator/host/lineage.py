"""Whether certbot will renew a lineage: a restored backup, a full disk or `rm` may have left it without what it takes.

Of one that it cannot read certbot knows nothing, and puts the next certificate of that name into another lineage,
`NAME-0001`, which nobody uses.
"""

from pathlib import Path

_KINDS = ("cert", "privkey", "chain", "fullchain")


def settings(renewal: Path) -> dict[str, str]:
    """With which certbot will renew it; nothing where it has none."""
    try:
        lines = renewal.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, equals, value in (line.partition("=") for line in lines) if equals}


def broken(live: Path, renewal: Path) -> str:
    """Why certbot will not renew it, in words; nothing where it will. Only root can tell.

    Source: certbot, `RenewableCert` in its storage.py and `_determine_account` in its main.py.
    """
    known = settings(renewal)
    if not all(known.get(kind) for kind in _KINDS):
        return f"{renewal} is {'damaged' if renewal.exists() else 'gone'}"
    for file in (live / f"{kind}.pem" for kind in _KINDS):
        if not file.exists():
            return f"{file} is gone" + (f": it leads to {file.readlink()}" if file.is_symlink() else "")
        if not file.is_symlink():
            return f"{file} is not a link, as after a copy that followed links"
    account = known.get("account", "")
    if account and account not in {path.name for path in (renewal.parent.parent / "accounts").rglob("*")}:
        return f"its account with the authority, {account}, is gone"
    return ""


def places(live: Path, renewal: Path) -> tuple[Path, ...]:
    """Where certbot has it."""
    return live, live.parent.parent / "archive" / live.name, renewal


def parts(live: Path, renewal: Path) -> list[Path]:
    """What there is of it."""
    return [path for path in places(live, renewal) if path.exists() or path.is_symlink()]
