"""`wsbundle import`: from files that were written by hand to a deploy.yaml, and to a list of all that is not in it."""

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from generator.config.load import ConfigError, Loaded, load_text
from generator.host.store import Store
from generator.importing.account import Account, NotImportable, account_of, chosen
from generator.importing.deploy_yaml import text_of
from generator.importing.found import on_this_host
from generator.importing.ledger import TAKEN, Item
from generator.importing.services import services_in
from generator.importing.sources import Source, read_named
from generator.importing.variables import in_file
from generator.paths import Paths
from generator.program import AS_ROOT, COMMAND
from generator.rendering.write import put_new_text
from generator.report import CommandError, Report, UsageError, paint, printable, refused

_COLOURS = {"wrong": "red", "replaced": "dim", "not supported": "yellow", "another's": "yellow"}
_ROOT = Path("/")
# Without them there is no deployment, so a value that will not do is not left out.
_NEEDED = ("domain", "name", "socket", "app.callable", "app.path")


def import_by_hand(options: Namespace, report: Report) -> int:
    """Write the deploy.yaml, unless there is one."""
    _refuse(options)
    try:
        account = _account(options)
        text, loaded = checked(account)
    except NotImportable as error:
        for fault in error.faults:
            report.error(printable(fault))
        raise UsageError("Nothing was written.") from None
    report.warnings(loaded.warnings)
    report.keeps_stdout = options.output == "-"
    if report.keeps_stdout:
        report.fact(text=text)
        report.result(text)
    else:
        _write(options.output, text, is_secret=bool(loaded.deploy.env))
    _report(account, report)
    if report.keeps_stdout:
        return 0
    of = "" if options.output == "deploy.yaml" else f" -f {shlex.quote(options.output)}"
    report.fact(file=options.output)
    report.line(
        f"{options.output} is ready. Read it; then `{COMMAND} check{of}`, and `{AS_ROOT} install{of}` on the host."
    )
    if not options.takeover:
        return 0
    if account.ledger.obstacles:
        raise CommandError(f"Nothing else was changed. See to what is named above; then `{AS_ROOT} install{of}`.")
    return _take_over(options.output, report)


def _refuse(options: Namespace) -> None:
    """Raises: UsageError, for what cannot be meant."""
    if options.output != "-" and os.path.lexists(options.output):
        raise UsageError(f"{options.output} is there already and was not changed; name another one with -o")
    if options.takeover and options.files:
        raise UsageError("--takeover is for what is found on this host; leave the files out")
    if options.takeover and options.output == "-":
        raise UsageError("--takeover installs what is written; name a file with -o")
    if options.takeover and os.geteuid():
        raise CommandError(f"you are not root; {AS_ROOT} import --takeover")


def _take_over(file: str, report: Report) -> int:
    from generator.host import operate

    return operate.install(Namespace(file=file, env=None, set=[], overwrite=False), report)


def _account(options: Namespace) -> Account:
    if options.files:
        sources, faults = read_named(options.files)
        if faults:
            raise NotImportable(*map(str, faults))
        variables = in_file(entry for each in sources if each.kind == "environment" for entry in each.entries)
        service = chosen(services_in(sources, variables), options.service)
        return account_of(sources, service, options.domain, lambda name: False)
    sources, service = on_this_host(_ROOT, options.service)
    account = account_of(sources, service, options.domain, _is_taken)
    _leave_others_out(account, sources)
    return account


def _leave_others_out(account: Account, sources: list[Source]) -> None:
    """Sites that were only looked at are not the matter of this import."""
    mine = set(account.files) | {source.path for source in sources if source.kind != "site"}
    mine |= {item.file for item in account.ledger.items if item.verdict != "another's"}
    account.ledger.items = [item for item in account.ledger.items if item.file in mine]
    account.ledger.obstacles = [each for each in account.ledger.obstacles if each[0].rpartition(":")[0] in mine]


def _is_taken(name: str) -> bool:
    """Whether something on this host has a name already."""
    import pwd

    paths, store = Paths(name), Store(name)
    places = [paths.service, paths.site, paths.site_link, paths.supervisor, f"lib/systemd/system/{name}.service"]
    if store.is_ours and store.current is None:  # left by a takeover that was undone
        return any(os.path.lexists(_ROOT / place) for place in places)
    places += [f"opt/{name}", f"etc/{name}", f"var/lib/{name}"]
    return any(os.path.lexists(_ROOT / place) for place in places) or name in {each.pw_name for each in pwd.getpwall()}


def checked(account: Account) -> tuple[str, Loaded]:
    """The text, which `wsbundle check` accepts: a value that will not do is left out, and listed.

    Raises:
        NotImportable: one that is needed will not do.
    """
    while True:
        files = dict.fromkeys(item.file for item in account.ledger.items)
        text = text_of(account.values, files)
        try:
            return text, load_text(text, "deploy.yaml")
        except ConfigError as error:
            bad = {located.key: located.fault for located in error.faults}
        behind = {key: _behind(key, str(fault), account) for key, fault in bad.items()}
        if any(of in (*_NEEDED, "") for of in behind.values()):
            raise NotImportable(*(f"{account.ledger.where(each) or each}: {bad[each]}" for each in bad))
        for key, of in behind.items():
            account.ledger.refuse(_left_out(key, of, account), str(bad[key]))


def _left_out(key: str, of: str, account: Account) -> str:
    """Leave a setting out, and of variables and the like the one that will not do; what was left out."""
    entries, name = account.values[of].value if of in account.values else None, key.removeprefix(f"{of}.")
    if isinstance(entries, dict) and name in entries and len(entries) > 1:
        del entries[name]
        return key
    account.values.pop(of, None)
    return of


def _behind(key: str, fault: str, account: Account) -> str:
    """The setting that was taken over and will not do: the one of the fault, or one that it names."""
    own = next((each for each in account.values if key == each or key.startswith(f"{each}.")), "")
    return own or next((each for each in account.values if "." in each and each in fault), "")


def _write(path: str, text: str, is_secret: bool) -> None:
    try:
        put_new_text(Path(path), text, 0o600 if is_secret else 0o666)
    except FileExistsError:
        raise UsageError(f"{path} is there already and was not changed; name another one with -o") from None
    except OSError as error:
        raise CommandError(refused(error)) from None


def _report(account: Account, report: Report) -> None:
    ledger = account.ledger
    obstacles = list(dict.fromkeys(ledger.obstacles))
    settings = {key: value.value for key, value in account.values.items()}
    if "env" in settings:  # they are in the file
        settings["env"] = dict.fromkeys(settings["env"], "...")
    report.fact(
        settings=settings,
        lines=[_as_fact(item) for item in ledger.items],
        conflicts=[{"what": each.what, "claims": each.claims, "end": each.end} for each in ledger.conflicts],
        obstacles=[{"where": where, "what": what} for where, what in obstacles],
    )
    left = [item for item in ledger.items if item.verdict != TAKEN]
    report.line(f"{len(ledger.items) - len(left)} lines were taken over, and {len(left)} were not:")
    for item in left:
        report.line(f"  {_line(item)}")
    for conflict in ledger.conflicts:
        report.aside(paint(f"conflict: {conflict}", "yellow", sys.stderr))
    if obstacles:
        report.aside(paint("Before the old service goes, see to these:", "yellow", sys.stderr))
    for where, what in obstacles:
        report.aside(f"  {printable(where)}: {printable(what)}")


def _line(item: Item) -> str:
    verdict = paint(item.verdict, _COLOURS[item.verdict])
    return f"{printable(item.where)}: {printable(item.text)}: {verdict}: {printable(item.why)}"


def _as_fact(item: Item) -> dict[str, Any]:
    place = {"file": item.file, "line": item.line, "last": item.last}
    return {**place, "text": item.text, "verdict": item.verdict, "why": item.why}
