"""The commands of `wsbundle`, each from parsed options to an exit code."""

from argparse import Namespace
from typing import TYPE_CHECKING

from generator.config.load import Loaded, load
from generator.config.schema import keys_file, serves_app
from generator.program import COMMAND, ROOT, starting
from generator.report import CommandError, Report, UsageError, folded, paint

if TYPE_CHECKING:
    from generator.rendering.bundle import Bundle

# jinja2 and all that needs it is imported inside the commands, after deploy.yaml has proven sound: a fault in it is
# told in half the time. For the same reason the way to that fault goes without pathlib.


def render(options: Namespace, report: Report) -> int:
    """Check deploy.yaml, render, let the real readers judge, and only then write."""
    loaded = with_project(loaded_for(options, report), report)
    from pathlib import Path

    from generator.judge import unchanged
    from generator.rendering.write import NotABundleError, write

    directory = Path(f"build/{loaded.deploy.name}" if options.output is None else options.output)
    if (manifest := unchanged(loaded, directory, report)) is not None:
        import json

        uses = [bool(entry["installed"]) for entry in json.loads(manifest)["files"]]
        report.fact(directory=str(directory), written=[], removed=[], unchanged=len(uses) + 1)
        report.line(f"Nothing to do: {directory} is up to date ({_summary(loaded, uses)})")
        return 0
    bundle = _judged(loaded, report)
    try:
        written = write(bundle, directory)
    except NotABundleError as error:
        raise UsageError(str(error)) from None
    summary = _summary(loaded, [file.installed for file in bundle.files])
    report.fact(directory=str(directory), written=written.written, removed=written.removed, unchanged=written.unchanged)
    for path in written.written:
        report.line(f"  {paint('wrote', 'green')}    {directory / path}")
    for path in written.removed:
        report.line(f"  {paint('removed', 'yellow')}  {directory / path}")
    if written.written or written.removed:
        report.line(f"{directory} is ready: {summary}")
    else:
        report.line(f"Nothing to do: {directory} is up to date ({summary})")
    return 0


def check(options: Namespace, report: Report) -> int:
    """All that `render` does, but for the writing."""
    loaded, bundle = verified(options, report)
    report.line(f"{options.file} is sound: {_summary(loaded, [file.installed for file in bundle.files])}")
    return 0


def run(options: Namespace, report: Report) -> int:
    """Become the service, here and as deploy.yaml says, in the foreground."""
    import os
    import shlex
    import signal
    import sys
    from ipaddress import ip_address

    import msgspec

    from service.settings import to_environ

    deploy = loaded_for(options, report).deploy
    if serves_app(deploy):
        way = f"uvicorn --reload {deploy.app.callable}"
        raise UsageError(f"an application of your own is tried out in its own environment: {way}")
    module = {"standalone": "service.server", "uvicorn": "service"}.get(deploy.server)
    if module is None:
        raise UsageError("gunicorn runs from its rendered files; to try the service here: --set server=uvicorn")
    host = f"[{deploy.host}]" if ":" in deploy.host else deploy.host
    if deploy.port == "none":
        raise UsageError("no port is open, and there is no nginx here; to try the service here: --set port=8765")
    deploy = msgspec.structs.replace(deploy, socket=None)  # which is for nginx
    report.line(f"Starting the service on ws://{host}:{deploy.port}/; Ctrl-C ends it.")
    here: dict[str, str] = {}
    if ip_address(deploy.host).is_loopback:
        origin = f"http://{host}:{deploy.port}"
        report.line(f"To try it in a browser: {origin}/page/")
        report.line(f"To watch it: {origin}/status")
        here = {"WEBSOCKET_PAGE": os.path.join(ROOT, "clients")}
        if deploy.origins:
            deploy = msgspec.structs.replace(deploy, origins=(*deploy.origins, origin))
    # A checkout may be where its path has blanks, and the service takes none with such; its workers run elsewhere.
    working = f"/proc/{os.getpid()}/cwd"
    if deploy.keys is None:
        from generator.minting import keys_for_trying

        are_needed = deploy.auth == "token"
        keys = keys_for_trying(deploy.name, are_needed)
        deploy = msgspec.structs.replace(deploy, keys=f"{working}/{keys}")
        if are_needed:
            report.line(
                f"A token for it: {COMMAND} token --keys {shlex.quote(os.path.abspath(keys))} --send-to '*' UUID"
            )
    if deploy.mailbox.keep == "disk":
        # Not those of the host, whose service may have them open.
        mailboxes = f"build/{deploy.name}.mailbox"
        report.line(f"Its mailboxes are kept in {mailboxes}.")
        kept = msgspec.structs.replace(deploy.mailbox, directory=f"{working}/{mailboxes}")
        deploy = msgspec.structs.replace(deploy, mailbox=kept)
    sys.stdout.flush()
    environ = {**os.environ, **to_environ(deploy), **here, **deploy.env}
    # They wait until the service has handlers for them, without a gap while Python starts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        os.execve(sys.executable, starting(module), environ)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def show(options: Namespace, report: Report) -> int:
    """Print every setting as it is in force."""
    from generator.explain import settings_in_force, shown

    loaded = loaded_for(options, report)
    rows = settings_in_force(loaded)
    report.fact(settings={key: {"value": value, "origin": origin} for key, value, origin in rows})
    width = max(len(key) for key, _, _ in rows) + 1
    for key, value, origin in rows:
        behind = f"  {paint('# ' + origin, 'dim')}" if options.origin else ""
        report.line(f"{key + ':':{width}} {shown(value)}{behind}")
    return 0


def explain(options: Namespace, report: Report) -> int:
    """Explain one setting, section, rule or agreement, or list them all."""
    from generator import explain as explained

    if options.topic is None:
        topics = explained.topics()
        report.fact(topics=dict(topics))
        width = max(len(name) for name, _ in topics)
        for name, line in topics:
            report.line(f"{paint(name, 'bold')}{' ' * (width - len(name))}  {folded(line, width + 2)}")
        return 0
    explanation = explained.about(options.topic)
    if explanation is None:
        raise UsageError(
            f"{options.topic} is not a setting, section, rule or agreement{explained.nearest(options.topic)}"
        )
    report.fact(topic=options.topic, explanation=dict(explanation))
    report.line(paint(options.topic, "bold"))
    width = max(len(name) for name, _ in explanation) + 1
    for name, text in explanation:
        report.line(f"  {name + ':':{width}} {folded(text, width + 3)}")
    return 0


def token(options: Namespace, report: Report) -> int:
    """Mint a token, or change the keys that sign them."""
    from generator.minting import seconds, with_keys

    path: str | None = options.keys
    group: tuple[str, ...] = ()
    if path is None:
        from generator.rendering.render import service_user

        deploy = loaded_for_center(options, report).deploy
        path, group = keys_file(deploy), (service_user(deploy),)
    if options.new_key:
        said = with_keys("new-key", path, options.algorithm, *group)
    elif options.drop_key is not None:
        said = with_keys("drop-key", path, options.drop_key)
    else:
        said = with_keys("token", path, options.subject, str(seconds(options.expires)), *options.send_to)
        report.fact(token=said)
    report.line(said)
    return 0


def loaded_for(options: Namespace, report: Report) -> Loaded:
    """The deployment that the options name; its warnings are reported."""
    loaded = load(options.file, options.env, options.set)
    report.warnings(loaded.warnings)
    return loaded


def loaded_for_center(options: Namespace, report: Report) -> Loaded:
    """The deployment that the options name, for what only the notification center can do.

    Raises:
        CommandError: it is an application of the operator's own.
    """
    loaded = loaded_for(options, report)
    if serves_app(loaded.deploy):
        raise CommandError(
            f"{loaded.deploy.app.callable} is in the notification center's place, which alone can do this"
        )
    return loaded


def with_project(loaded: Loaded, report: Report) -> Loaded:
    """The same with the application's files, if it has one.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    if not serves_app(loaded.deploy):
        return loaded
    from generator.config import sources

    loaded, warnings = sources.with_project(loaded)
    report.warnings(warnings)
    return loaded


def verified(options: Namespace, report: Report) -> "tuple[Loaded, Bundle]":
    """The same with its application's files and its bundle, which all readers at hand accept."""
    loaded = with_project(loaded_for(options, report), report)
    return loaded, _judged(loaded, report)


def _judged(loaded: Loaded, report: Report) -> "Bundle":
    from generator.judge import judge
    from generator.rendering.render import render as render_files

    bundle = render_files(loaded.deploy)
    judge(loaded, bundle, report)
    return bundle


def _summary(loaded: Loaded, uses: list[bool]) -> str:
    """`uses` says of each file whether it is installed."""
    deploy = loaded.deploy
    return f"{len(uses)} files, {sum(uses)} of them for {deploy.server} under {deploy.manager}, tls {deploy.tls}"
