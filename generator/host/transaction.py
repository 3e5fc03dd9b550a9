"""From one generation to another, or back: nothing in between is left behind, whatever ends the installer."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from msgspec.structs import replace

from generator.host import facts, mailbox_files
from generator.host.apply import Host, side
from generator.host.clients import farewell
from generator.host.directories import make_directory
from generator.host.drift import put_back
from generator.host.engine import Password
from generator.host.guardian import ENDINGS, guarded
from generator.host.hosts import RefusedError, meet
from generator.host.keys import KeysPlace
from generator.host.neighbours import ways_in
from generator.host.next_start import read_by_the_service
from generator.host.own_site import past_nginx, through_site
from generator.host.probe import PATIENCE_S, Endpoint, Unhealthy, probe
from generator.host.programs import StepFailed, must, run
from generator.host.store import Generation, Pending, Store
from generator.host.switch import Side, plan
from generator.paths import Paths
from generator.report import CommandError, Report, said

# Not in /run/lock: anybody may write there.
_LOCK = "/run/wsbundle.lock"
# As long as an outage may last, and the hosts must then have met again.
_MEETING_S = 30.0
_NOTHING = "nothing is installed, as before"


@contextmanager
def alone(store: Store, report: Report) -> Iterator[None]:
    """One installation at a time, of whatever deployment: they share nginx. However it is ended, it ends in order.

    Raises:
        CommandError: another one is under way.
    """
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        report.goes_on_unheard = True
        os.umask(0o022)  # what is installed is read by nginx and by the service, whatever the caller's umask
        _take(lock, report)
        with guarded(lambda unheard: finish_pending(store, unheard)):
            for number in ENDINGS:
                # What `nohup` has it ignore does not end it.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.default_int_handler)
            yield
    except KeyboardInterrupt:
        report.error("Interrupted.")
        raise
    finally:
        os.close(lock)


def is_under_way(lock: str = _LOCK) -> bool:
    """Whether an installation, of whatever deployment, is at work; only looks. Source: proc_locks(5)."""
    try:
        status = os.stat(lock)
        held = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    place = f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino} "
    return any(place in line for line in held.splitlines())


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is under way is brought to its end, also by the programs that are started for it."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def change(store: Store, number: int, report: Report, everything: bool = False) -> None:
    """Switch to a generation and prove it healthy, or switch back.

    Raises:
        CommandError: the previous generation runs again; says why the new one did not.
    """
    before, host = store.current, Host(store, report)
    # One that an older release has written comes back in today's form; undoing leaves what it finds in the old one.
    generation = replace(store.generation(number), has_files=True)
    store.record(generation)
    began = time.time()
    keys = KeysPlace(store)
    password = Password(store)
    makes_keys, makes_password = keys.are_missing(number), password.is_missing(number)
    proves = not generation.healthy
    store.begin(Pending(before, number, makes_keys, makes_password, proves, everything, store.disabled(before)))
    try:
        _make_user(store, number)
        store.restore(number)
        if makes_keys:
            keys.make(number, report)
        if makes_password:
            password.make()
        _let_in(store, number)
        mailbox_files.hand_over(store, number)
        keys.hand_over(number)
        password.hand_over(number)
        todo = plan(side(store, before), side(store, number), everything)
        if before is not None and todo.replaces_processes:
            report.line(farewell(store, todo))
        host.switch(todo, number)
        _send_a_message(generation, report)
        _meet_the_others(generation, report)
        host.retire(todo)
        store.record(_proven(generation))
    except (StepFailed, Unhealthy, RefusedError, OSError) as error:
        report.error(f"Generation {number} does not work: {said(error)}")
        _print_log(store, generation, began, report)
        sound = _undo(store, before, number, report)
        back = f"generation {before} {'runs again' if sound else 'is current again'}" if before else _NOTHING
        raise CommandError(f"Undone: {back}.") from None
    except BaseException:
        report.error("Interrupted; going back.")
        _undo(store, before, number, report)
        raise
    store.end()


def _make_user(store: Store, number: int) -> None:
    """Make the user of a generation again where somebody has removed it: its group has files of the generation."""
    if facts.account_of(store.user(number)) is None:
        rules = store.pristine(number, Paths(store.name).sysusers)
        must(run("systemd-sysusers", str(rules)), "systemd-sysusers")


def _let_in(store: Store, number: int) -> None:
    """Let the service of a generation come to what is its own in /etc/<name>, where somebody has closed that."""
    directory, user = store.root / f"etc/{store.name}", store.user(number)
    beyond = [path for path in read_by_the_service(store, number, ours=True) if os.path.lexists(path)]
    if beyond and facts.closed_to(user, str(directory), way="-x"):
        directory.chmod(directory.stat().st_mode | 0o111)


def give_back(store: Store, report: Report) -> None:
    """Let what was set up by hand serve again, and take every link away; the generations are kept.

    Raises:
        CommandError: not all of it could be had again; the next run goes back to the generation that was current.
    """
    number = store.current
    assert number is not None
    store.begin(Pending(number, None))
    with undisturbed():
        todo = plan(side(store, number), side(store, None), everything=True)
        failures = Host(store, report).switch_back(todo, None)
    if failures:
        raise CommandError("\n".join(f"Not done: {failure}" for failure in failures))
    store.end()


def leave(store: Store, report: Report) -> list[str]:
    """Take every link away and stop what runs, of all generations that may stand on the host. What failed.

    What was set up by hand stays where it was put.
    """
    pending = store.pending or Pending(store.current, None)
    ends = dict.fromkeys(n for n in (pending.after, pending.before) if n is not None and store.is_whole(n))
    replaced = side(store, pending.before if pending.before in ends else None).replaces
    sides = [side(store, number) for number in ends] or ([_unrecorded(store)] if store.traces() else [])
    make_directory(store.home)
    store.begin(Pending(pending.before, None))
    failures = []
    for there in sides:
        todo = plan(there, side(store, None), everything=True)
        todo = replace(todo, revives=tuple(path for path in todo.revives if path not in replaced))
        failures += Host(store, report).switch_back(todo, None)
    return failures


def _unrecorded(store: Store) -> Side:
    """What is on the host of a deployment whose generations are gone, as after `rm -r /opt/<name>`."""
    links = dict.fromkeys(store.traces(), "")
    manager = "supervisor" if Paths(store.name).supervisor in links else "systemd"
    engines = [PurePath(path).name for path in links if "-server@" in path and path.endswith(".service")]
    return Side(name=store.name, manager=manager, links=links, engine=engines[0] if engines else "")


def finish_pending(store: Store, report: Report) -> bool:
    """Undo a switch that was cut short, by kill -9 or by a power cut. Whether the host now runs what is current.

    What cannot be had again does not stand in the way of what comes next, which takes nothing for granted then.
    """
    pending, sound = store.pending, True
    if pending is not None:
        report.line(f"{_aim(pending)} was cut short; undoing it.")
        sound = _undo(store, pending.before, pending.after, report)
    store.sweep()
    return sound


def finish_earlier(store: Store, report: Report) -> bool:
    """The same for what an earlier run has left, and whose guardian has done all that could be done then.

    Raises:
        CommandError: no more can be done now; each try would restart the service again.
    """
    if store.pending is not None and not os.access(store.home, os.W_OK):
        what = f"{_aim(store.pending)} was cut short, and cannot be undone: nothing can be written to {store.home}"
        raise CommandError(f"{what}; `mount -o remount,rw /opt`, or see `lsattr -d {store.home}`. Nothing was changed.")
    return finish_pending(store, report)


def _aim(pending: Pending) -> str:
    return f"A switch to generation {pending.after}" if pending.after else "An uninstallation"


def _undo(store: Store, before: int | None, after: int | None, report: Report) -> bool:
    """Back to `before`, from wherever a switch to `after` has got to.

    Whether all went well and clients get through. A switch that could not be undone stays pending, so that the next run
    does not trust what it finds.
    """
    whole = after if after is not None and store.is_whole(after) else None
    if before is not None and not store.is_whole(before):
        before = None  # an uninstallation had begun to remove it
    pending = store.pending or Pending(before, after)
    with undisturbed():
        todo = plan(side(store, whole), side(store, before), pending.everything, undoes=True)
        failures = Host(store, report).switch_back(todo, before)
        if pending.makes_keys:
            KeysPlace(store).remove()
        if pending.makes_password:
            Password(store).remove()
        for path in pending.disabled:
            (store.root / path).unlink(missing_ok=True)
        if before is not None and (put_back(store, before) or pending.disabled):
            run("systemctl", "daemon-reload")
        for failure in failures:
            report.error(f"Not undone: {failure}")
        store.disprove()
        if not failures:
            store.end()
            store.sweep()
    return not failures and (before is None or _answers(store.generation(before), report))


def _answers(generation: Generation, report: Report) -> bool:
    """Whether clients of a generation that is back get through: supervisor calls running what has yet to listen."""
    try:
        _send_a_message(generation, report)
    except Unhealthy as error:
        report.error(f"Generation {generation.number} is back, and does not answer: {error}")
        return False
    return True


def endpoint(generation: Generation) -> Endpoint:
    """Where clients come to it; the service itself where it is in no site yet."""
    around = facts.surroundings(generation.domain)
    ours = Endpoint(
        domain=generation.domain,
        encrypted=generation.tls != "off",
        asks_for_token=generation.auth == "token",
        ways=ways_in(generation.listen, around),
        ports=generation.ports,
        proxy_protocol=generation.proxy_protocol,
        serves_app=generation.app != "",
        health=generation.health,
        path=generation.path,
    )
    if not generation.included:
        return ours
    return through_site(generation.included, ours, around) or past_nginx(generation.listener, ours)


def _send_a_message(generation: Generation, report: Report) -> None:
    act = f"ask for {generation.health or generation.path}" if generation.app else "send a message"
    there = endpoint(generation)
    with report.step(f"{act} {'past' if there.is_past_nginx else 'through'} nginx ({generation.domain})"):
        # supervisor calls running what has yet to begin to serve.
        probe(there, max(PATIENCE_S, generation.start_s))


def _meet_the_others(generation: Generation, report: Report) -> None:
    """What clients said while this host was proven, its address for one, has come to all other hosts."""
    if generation.joined.url is not None:
        with report.step("meet the other hosts"):
            others = meet(generation.joined, _MEETING_S)
        report.line(f"  {', '.join(others) or 'no other host'} on the engine")


def _take(lock: int, report: Report) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode()
        if not holder or Path(f"/proc/{holder}").exists():
            process = f"process {holder}" if holder else "just begun"
            raise CommandError(f"another installation is under way ({process}); wait for its end") from None
        report.line("An installation was killed; waiting until its guardian has undone it.")
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    try:
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except OSError as error:  # it names no file by itself
        raise OSError(error.errno, error.strerror, _LOCK) from None


def _proven(generation: Generation) -> Generation:
    return replace(generation, healthy=True, installed_at=time.time())


def _print_log(store: Store, generation: Generation, began: float, report: Report) -> None:
    if generation.manager == "systemd":
        said = facts.log_of(store.units, began)
    else:
        said = run("tail", "-n", "20", f"/var/log/{store.name}/{store.name}.log").output
    lines = dict.fromkeys(map(_without_traceback, said.splitlines()))
    report.error("\n".join(f"  {line}" for line in lines) or "  (its log is empty)")
    for unit in store.units if generation.manager == "systemd" else ():
        for path in facts.drop_ins(unit):
            if f"/{unit}.d/" in path:  # others are for each service, as LXC has one
                report.error(f"  {unit} is changed by {path}, which is not ours")


def _without_traceback(line: str) -> str:
    """A line of the log with the end alone of what it has of a traceback, whose line breaks are escaped."""
    first, *rest = line.split(r"\n")
    return f"{first} ... {rest[-1].strip()}" if len(rest) > 1 else line
