"""A deploy.yaml for an application that is there already: what `wsbundle init --app` sees in its directory.

It reads the files and runs none of them, so it can be wrong; each line says where it was found.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from generator.config.sources import LOCKED_BY

# Of frameworks whose objects are ASGI applications.
_MADE = re.compile(
    r"^(\w+)(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)*(FastAPI|Starlette|Litestar|Quart|Blacksheep|ASGIApp)\(", re.MULTILINE
)
# Of a function of theirs, such as create_app(); classes such as Flask or Celery are something else.
_BUILT = re.compile(
    r"^(application|app|api|asgi_app)(?:\s*,\s*\w+)?(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)*(?!\w*[aw]sgi)[a-z_]\w*\(",
    re.MULTILINE,
)
_IS_ASGI = re.compile(
    r"^\s*(?:from|import)\s+(?:fastapi|starlette|litestar|quart|blacksheep|socketio|fasthtml|channels|falcon\.asgi"
    r"|django\.core\.asgi)\b",
    re.MULTILINE,
)
_IS_WSGI = re.compile(r"=\s*(?:\w+\.)*(?:Flask|Bottle|get_wsgi_application)\(")
_USUAL_NAMES = ("application", "app", "api")
_USUAL_MODULES = ("asgi", "main", "app", "server", "api")
_HEALTH = re.compile(r"""["'](/?(?:healthz|health|healthcheck|livez|ping))/?["']""")
_LEFT_OUT = ("tests", "test", "docs", "node_modules", "venv", "env", "site-packages", "migrations", "__pycache__")
_MOST_FILES = 2000
_REQUIREMENTS = (
    *("uv.lock", "requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt"),
)
# What reaches out to others, by the package that it is of.
_REACHING = re.compile(
    r"^\s*(redis|httpx|requests|aiohttp|boto3|openai|stripe|celery|motor|pymongo|mysqlclient)\b", re.MULTILINE
)


class Recognised(msgspec.Struct):
    """An application as it looks from outside: lines of deploy.yaml below `app:`, each with where it was found."""

    callable: str = ""
    lines: list[tuple[str, str]] = []
    others: list[str] = []
    reaches: str = ""
    is_wsgi: bool = False


def recognise(directory: Path) -> Recognised:
    """What kind of application is in a directory; without a callable where none was found.

    It may be in a folder with requirements of its own, beside others that are none.
    """
    found = _recognised(directory)
    if not found.callable and (below := _django_below(directory)):
        return below
    if _requirements_in(directory):
        return found
    for folder in sorted(directory.iterdir()):
        is_one = re.fullmatch(r"[A-Za-z][\w.-]*", folder.name, re.ASCII) and folder.name not in _LEFT_OUT
        if is_one and _requirements_in(folder) and f"{found.callable or folder.name}.".startswith(f"{folder.name}."):
            inside = _recognised(folder)
            if inside.callable:
                inside.lines.insert(0, (f"path: {folder.name}", "What it needs of Python is named there"))
                return inside
    return found


def _django_below(directory: Path) -> Recognised | None:
    """A project of Django in a folder, as beside a frontend; what it needs may be named above."""
    for manage in sorted(directory.glob("*/manage.py")):
        inside = _recognised(manage.parent)
        if inside.callable:
            if (name := _requirements_in(directory)) and not _requirements_in(manage.parent) and name != "uv.lock":
                inside.lines = [line for line in inside.lines if not line[0].startswith("requirements:")]
                inside.lines.append((f"requirements: ../{name}", "What it needs of Python"))
            inside.lines.insert(0, (f"path: {manage.parent.name}", "manage.py is there"))
            return inside
    return None


def _recognised(directory: Path) -> Recognised:
    texts = {path.relative_to(directory): text for path, text in _sources(directory)}
    found = Recognised(is_wsgi=any(map(_IS_WSGI.search, texts.values())))
    if Path("manage.py") in texts:
        _look_at_django(texts, found)
    else:
        _look_at_objects(texts, found)
    _look_for_requirements(directory, found)
    for path, text in texts.items():
        if path.name != "settings.py" and (health := _HEALTH.search(text)):
            found.lines.append((f"health: /{health[1].lstrip('/')}", f"found in {path}"))
            break
    return found


def deploy_yaml(domain: str, directory: Path, found: Recognised, command: str) -> str:
    """The text of deploy.yaml."""
    name = re.sub(r"[^a-z0-9]+", "-", directory.name.lower()).strip("-")[:30].strip("-")
    name = name if re.match("[a-z]", name) else "app"
    lines = [
        f"# One deployment of your application. `{command} check` checks this file,",
        f"# and `{command} explain app` says more about each setting. What is missing or wrong is yours to write.",
        "",
        f"domain: {domain}",
        f"name: {name}",
        "# They share no memory: what is in variables, such as a list of WebSockets, needs a single one.",
        "workers: 2",
        "# Only nginx reaches it.",
        f"socket: /run/{name}/app.sock",
        "# tls: letsencrypt",
        "",
        "app:",
        *(f"  # Also found: {other}" for other in found.others),
        f"  callable: {found.callable}",
    ]
    for line, reason in found.lines:
        lines += [f"  # {reason}", f"  {line}"]
    if found.reaches:
        lines += [
            "",
            f"# {found.reaches} looks as if it reached others. It may connect to nothing that is not named here.",
            "# needs:",
            "#   network: [any]",
        ]
    return "\n".join(lines) + "\n"


def _sources(directory: Path) -> Iterator[tuple[Path, str]]:
    number = 0
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py") and number < _MOST_FILES and (path := Path(folder, name)).is_file():
                number += 1
                with suppress(PermissionError):  # `check` says so
                    yield path, path.read_text(encoding="utf-8", errors="replace")


def _look_at_django(texts: dict[Path, str], found: Recognised) -> None:
    setting = re.search(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", texts[Path("manage.py")])
    package = setting[1].partition(".")[0] if setting else ""
    settings = next((text for path, text in texts.items() if path.stem == "settings" or "settings" in path.parts), "")
    if Path(package, "asgi.py") in texts:
        found.callable = f"{package}.asgi:application"
    if static := re.search(r"""^STATIC_ROOT\s*=.*?["']([\w./-]+)["']\s*\)?\s*$""", settings, re.MULTILINE):
        url = re.search(r"""^STATIC_URL\s*=\s*["']/?([\w./-]+?)/?["']""", settings, re.MULTILINE)
        found.lines.append(("build: [python manage.py collectstatic --noinput]", "STATIC_ROOT of Django"))
        found.lines.append(
            (f"static: {{/{url[1] if url else 'static'}/: {static[1].strip('/')}}}", "STATIC_URL of Django")
        )
    found.lines.append(("before: [python manage.py migrate --noinput]", "It is Django's"))


def _look_at_objects(texts: dict[Path, str], found: Recognised) -> None:
    pattern = _MADE if any(map(_MADE.search, texts.values())) else _BUILT
    if pattern is _BUILT and not any(map(_IS_ASGI.search, texts.values())):
        return
    candidates = [
        (f"{_module(path, texts)}:{made[1]}", path, made[1])
        for path, text in texts.items()
        if all(part.isascii() and part.isidentifier() for part in path.with_suffix("").parts)
        for made in pattern.finditer(text)
    ]
    candidates.sort(
        key=lambda each: (_rank(each[2], _USUAL_NAMES), _rank(each[1].stem, _USUAL_MODULES), len(each[1].parts))
    )
    if candidates:
        found.callable = candidates[0][0]
        found.others = [name for name, _, _ in candidates[1:5]]


def _module(path: Path, texts: dict[Path, str]) -> str:
    """What a file is imported as; what is in `src` from there, unless that is a package itself."""
    is_in_src = path.parts[0] == "src" and Path("src/__init__.py") not in texts
    parts = path.with_suffix("").parts[1 if is_in_src else 0 :]
    return ".".join(parts).removesuffix(".__init__")


def _rank(name: str, usual: tuple[str, ...]) -> int:
    return usual.index(name) if name in usual else len(usual)


def _look_for_requirements(directory: Path, found: Recognised) -> None:
    if name := _requirements_in(directory):
        found.lines.append((f"requirements: {name}", "What it needs of Python"))
        text = (directory / name).read_text(encoding="utf-8", errors="replace")
        names = re.sub(r'^name = "(.*)"$', r"\1", text, flags=re.MULTILINE)
        found.reaches = ", ".join(dict.fromkeys(_REACHING.findall(names)))
    else:
        there = [fix for name, fix in LOCKED_BY.items() if os.path.isfile(directory / name)]
        fix = f"{there[0]}, and name that" if there else "name what it needs"
        found.lines.append(("requirements: null", f"Neither uv.lock nor requirements.txt is there: {fix}"))


def _requirements_in(directory: Path) -> str:
    return next((name for name in _REQUIREMENTS if os.path.isfile(directory / name)), "")
