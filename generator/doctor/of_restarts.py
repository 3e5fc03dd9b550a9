"""Whether clients stay connected when the service restarts or reloads: seen without doing either."""

import stat
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import NamedTuple

from generator.config.schema import Deploy, bus
from generator.doctor.checks import Verdict, check, failed, look, ok, warning
from generator.doctor.of_the_protocol import INSTALL
from generator.doctor.patient import Patient, children
from generator.program import AS_ROOT
from generator.rendering.render import STORED_DESCRIPTORS, keeps_clients, replaces_workers, settings_in_env

_KEEP = "WEBSOCKET_DRAIN_KEEP"
# By which the process knows how many descriptors systemd keeps for it: sd_notify(3).
_STORE = "FDSTORE"


class Keeping(NamedTuple):
    """What decides whether clients are kept.

    The process has the setting and the size of the store, systemd its own size of that, what is in it now, and the
    signal of a restart; `limit` is None where no systemd answers. `doors` says of each worker whether it can take
    clients of another one.
    """

    setting: str
    store: str
    limit: int | None
    stored: int
    signal: int
    doors: dict[int, bool]


@look()
def what_keeps_clients(patient: Patient) -> Keeping:
    environ, unit = patient.process.environ, patient.unit
    limit = unit.get("FileDescriptorStoreMax", "")
    return Keeping(
        setting=environ.get(_KEEP, ""),
        store=environ.get(_STORE, ""),
        limit=int(limit) if limit.isdecimal() else None,
        stored=int(unit.get("NFileDescriptorStore") or 0),
        signal=int(unit.get("RestartKillSignal") or 0),
        doors={worker: _has_door(Path(bus(patient.deploy)), worker) for worker in children(patient.pid)},
    )


def _has_door(directory: Path, worker: int) -> bool:
    """Nobody knocks: who is not a worker is turned away, and that is logged."""
    with suppress(OSError):
        return any(stat.S_ISSOCK(path.stat().st_mode) for path in directory.glob(f"{worker}-*.door"))
    return False


def _expected(deploy: Deploy) -> str:
    if not keeps_clients(deploy):
        return "a restart sends clients away"
    return f"a restart keeps clients: room for {STORED_DESCRIPTORS} descriptors, {SIGINT.name}, nothing left over"


@check("drain.keep", see=what_keeps_clients, expects=_expected)
def keep(deploy: Deploy, seen: Keeping) -> Verdict:
    """Clients stay connected when the service restarts or reloads, if they are to."""
    keeps = keeps_clients(deploy)
    if seen.setting != settings_in_env(deploy).get(_KEEP, ""):
        return failed(seen.setting or "nothing", INSTALL)
    if seen.limit is None:
        return ok(f"{seen.setting or 'not used'}; systemd does not answer")
    size, by = (STORED_DESCRIPTORS, SIGINT) if keeps else (0, SIGTERM)
    fix = f"`systemctl cat {deploy.name}` shows who says so; `{AS_ROOT} install` sets it"
    if seen.limit != size:
        return failed(f"FileDescriptorStoreMax={seen.limit}: a restart closes clients" if keeps else seen.limit, fix)
    if seen.signal != by:
        return failed(f"RestartKillSignal={Signals(seen.signal).name}", fix)
    if not keeps:
        return ok(_expected(deploy))
    if seen.store != str(size):
        was = f"it was started with room for {seen.store or 'no'} descriptors: this one restart closes clients"
        return failed(was, f"sudo systemctl restart {deploy.name} when few are connected")
    passes_on = replaces_workers(deploy)
    if closed := [str(worker) for worker, is_open in seen.doors.items() if passes_on and not is_open]:
        what = f"no clients can pass to worker {' and '.join(closed)} at a reload: its socket in {bus(deploy)} is gone"
        return failed(what, f"sudo systemctl restart {deploy.name}, which keeps them; what removes files from /run?")
    if seen.stored:
        what = f"{seen.stored} descriptors are left in the store of systemd, with clients that nobody serves"
        return warning(what, f"`journalctl -u {deploy.name}` says why; a restart takes those back that can be")
    return ok(_expected(deploy))
