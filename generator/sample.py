"""A deploy.yaml to begin with: that of the repository, and what `wsbundle init` writes."""

import json
import shlex
from argparse import Namespace
from pathlib import Path

from generator.config.load import ConfigError, load_text
from generator.config.schema import ESSENTIAL
from generator.explain import SETTINGS, shown
from generator.program import AS_ROOT, COMMAND
from generator.rendering.write import put_new_text
from generator.report import CommandError, Report, UsageError, wrapped
from service.declaration import Setting

_WIDTH = 100


def init(options: Namespace, report: Report) -> int:
    """Write one for a domain; what is there already stays as it is."""
    text = _of_an_application(options) if options.app else sample(options.domain, COMMAND)
    try:
        load_text(f"domain: {json.dumps(options.domain, ensure_ascii=False)}", options.file)
        loaded = load_text(text, options.file)
    except ConfigError as error:
        raise UsageError("\n".join(f"DOMAIN: {located.fault}" for located in error.faults)) from None
    try:
        put_new_text(Path(options.file), text)
    except FileExistsError:
        raise CommandError(
            f"{options.file} is there already and was not changed; edit it, or name another one with -f"
        ) from None
    report.warnings(loaded.warnings)
    report.fact(file=options.file)
    of = "" if options.file == "deploy.yaml" else f" -f {shlex.quote(options.file)}"
    trying = "" if options.app else f", `{COMMAND} run{of}`"
    here = f"`{COMMAND} check{of}`{trying}"
    report.line(f"{options.file} is ready. Next: {here}, and on the host `{AS_ROOT} install{of}`.")
    return 0


def _of_an_application(options: Namespace) -> str:
    """That of the application beside the file.

    Raises:
        CommandError: none is seen there.
    """
    from generator.recognised import deploy_yaml, recognise

    directory = Path(options.file).absolute().parent
    found = recognise(directory)
    if not found.callable:
        what = f"no ASGI application is seen in {directory}: neither manage.py with asgi.py, nor an object of FastAPI, "
        fix = "Starlette, Litestar or Quart; write app.callable yourself: docs/own-app.md"
        if found.is_wsgi:
            what = f"what is seen in {directory} is WSGI, and ASGI is served; "
            fix = "write asgi.py for Django, or wrap it with asgiref.wsgi.WsgiToAsgi"
        raise CommandError(what + fix)
    return deploy_yaml(options.domain, directory, found, COMMAND)


def sample(domain: str, command: str) -> str:
    """The essential settings live, all others commented at their defaults. `command` is what checks and renders."""
    settings = list(SETTINGS.values())
    lines = [
        f"# One deployment of the notification center. `{command} check` checks this file, "
        f"`{command} render` renders it;",
        "# `wsbundle explain KEY` says more about each setting, and `wsbundle explain` lists them all.",
        "",
    ]
    names = dict.fromkeys(_top(setting) for setting in settings)
    for name in ESSENTIAL:
        lines += _block(name, [setting for setting in settings if _top(setting) == name], domain)
    lines += [
        "# Everything below is optional, and shown at its default, or with an example where it has none.",
        "# To change a setting, remove the # from its line, and from that of the section above it.",
        "",
    ]
    for name in names:
        if name not in ESSENTIAL:
            lines += _block(name, [setting for setting in settings if _top(setting) == name], "", mark="#")
    return "\n".join(lines[:-1]) + "\n"


def _top(setting: Setting) -> str:
    return setting.key.partition(".")[0]


def _block(name: str, settings: list[Setting], domain: str, mark: str = "") -> list[str]:
    """The lines of one top-level key, and an empty one."""
    if settings[0].key == name:
        (setting,) = settings
        value = domain if name == "domain" else _value(setting)
        return [*_words(setting, ""), f"{mark}{name}: {value}", ""]
    lines = [f"{name}:"]
    for setting in settings:
        lines += [*_words(setting, "  "), f"  {setting.key.partition('.')[2]}: {_value(setting)}"]
    return [*(mark + line for line in lines), ""]


def _words(setting: Setting, indent: str) -> list[str]:
    unit = f" In {setting.extra['unit']}." if "unit" in setting.extra else ""
    text = setting.description + unit
    return wrapped(text, _WIDTH, f"{indent}# ")


def _value(setting: Setting) -> str:
    if setting.default is None:
        return str(setting.extra["example"])
    if isinstance(setting.default, str) and setting.choices == () and " " in setting.default:
        return json.dumps(setting.default, ensure_ascii=False)
    return shown(setting.default)
