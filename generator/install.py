"""`wsbundle install`, `rollback` and `uninstall`: from one generation to another, or not at all.

A first installation that fails leaves no service and nothing in /etc. What it leaves serves the next try: Debian's
packages, and where it got that far the user and /opt/<name>/runtimes; `uninstall --purge` removes the latter two.
"""

import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from generator import certificates, default_site
from generator import facts as host_facts
from generator.apply import SHARED, Host, StepFailed, must, side
from generator.bundle import Bundle
from generator.certificates import Place
from generator.document import Located
from generator.drift import Drift, copies, drifts, keep_copy, put_back
from generator.environment import from_wheels
from generator.facts import Facts, Listener, run
from generator.guardian import guarded
from generator.judge import judge
from generator.load import Loaded
from generator.preflight import packages, problems, warnings
from generator.probe import Endpoint, Unhealthy, probe
from generator.readers.nginx import main_text, missing_includes
from generator.render import service_user, upstream
from generator.report import CommandError, Report
from generator.schema import Deploy
from generator.store import READY, Generation, Pending, Store
from generator.switch import plan

ROOT = Path(__file__).parent.parent
KEPT_GENERATIONS = 5
# Ends with this process: the next run must not meet it at work on the same directory. Source: setpriv(1).
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
# Not in /run/lock: anybody may write there.
_LOCK = "/run/wsbundle.lock"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install(loaded: Loaded, bundle: Bundle, report: Report, overwrite: bool) -> int:
    """Make the host run this bundle; on any failure it runs what it ran before."""
    deploy, store = loaded.deploy, Store(loaded.deploy.name)
    if os.geteuid():
        _preflight(loaded, store, bundle, report)  # says so, among all else that is wrong
    os.umask(0o022)
    with _alone(store, report):
        sound = finish_pending(store, report)
        found = _drifts(store, report, overwrite)
        runtime = runtime_id()
        same = _is_same(store, bundle, runtime)
        if sound and same and not found and _runs(store, deploy.manager):
            certificates.obtain(deploy, Place(deploy.name), report)
            report.fact(generation=store.current, changed=False)
            report.line(f"Nothing to do: generation {store.current} of {store.name} is current and runs.")
            return 0
        _preflight(loaded, store, bundle, report)
        if _install_packages(deploy, report):
            _preflight(loaded, store, bundle, report)  # again: a package may bring what is in the way
            judge(loaded, bundle, report)  # the readers that were not at hand before
        _make_runtime(store, runtime, report)
        number = _stage(deploy, bundle, store, runtime, report)
        kept = copies(store, store.current)
        for drift in found:
            keep_copy(drift, store, kept)
        change(store, number, report, everything=same or bool(found) or not sound)
        if found and kept.exists():
            kept.rename(kept.with_name(f"{kept.name}-{time.time():.0f}"))
        pruned = store.prune(KEPT_GENERATIONS)
        report.fact(generation=number, changed=True, pruned=pruned)
        certificates.obtain(deploy, Place(deploy.name), report)
        _farewell(store, report)
    return 0


def rollback(deploy: Deploy, number: int | None, report: Report) -> int:
    """Make an earlier generation current again; by default the newest healthy one before the current.

    `deploy` says which authority to ask, should its domain need another certificate than the present one.
    What was edited by hand does not hold it up: at night it must work. Copies are kept.
    """
    name, store = deploy.name, Store(deploy.name)
    _must_be_root()
    with _alone(store, report):
        sound = finish_pending(store, report)
        kept = [n for n in store.numbers() if store.is_whole(n) and n != store.current]
        healthy = [n for n in kept if store.generation(n).healthy]
        earlier = [n for n in healthy if store.current is None or n < store.current]
        target = number if number is not None else (earlier[-1] if earlier else None)
        if target is None or target not in kept:
            known = ", ".join(map(str, healthy)) or "none"
            raise CommandError(f"{name} has no such generation to go back to; kept and healthy: {known}")
        found = drifts(store)
        for drift in found:
            report.line(str(drift))
            keep_copy(drift, store, copies(store, store.current))
        change(store, target, report, everything=bool(found) or not sound)
        report.fact(generation=target)
        generation = store.generation(target)
        certificates.obtain(replace(deploy, domain=generation.domain, tls=generation.tls), Place(name), report)
        _farewell(store, report)
    return 0


def uninstall(deploy: Deploy, report: Report, purge: bool) -> int:
    """Remove exactly what was installed; with `purge` also data and user. One that was cut short is completed."""
    name, store = deploy.name, Store(deploy.name)
    _must_be_root()
    with _alone(store, report), _undisturbed():
        store.sweep()
        user = _user_of(store) or deploy.user or name
        home = store.home.exists()
        if not home and not (purge and _remains(name, user)):
            report.line(f"Nothing to do: {name} is not installed.")
            return 0
        backup = Path(f"/var/backups/{name}-{time.time():.0f}")
        for drift in drifts(store):
            report.line(str(drift))
            keep_copy(drift, store, backup)
        failures = _leave(store, report) if home else []
        if not purge:
            certificates.forget(Place(name), report)
        else:
            failures += certificates.delete(Place(name))
            with report.step("remove data and user"):
                _purge(name, user)
        with report.step(f"remove /opt/{name}"):
            store.vanish()
            shutil.rmtree(f"/run/{name}", ignore_errors=True)
        report.line(f"{name} is gone" + ("" if purge else f"; its data is kept in /var/lib/{name}"))
        if backup.exists():
            report.line(f"What was edited by hand is kept in {backup}.")
        for failure in failures:
            report.error(failure)
    return 1 if failures else 0


def change(store: Store, number: int, report: Report, everything: bool = False) -> None:
    """Switch to a generation and prove it healthy, or switch back.

    Raises:
        CommandError: the previous generation runs again; says why the new one did not.
    """
    before, host = store.current, Host(store, report)
    generation = store.generation(number)
    began = time.time()
    store.begin(Pending(before, number))
    try:
        store.restore(number)
        host.switch(plan(side(store, before), side(store, number), everything), number)
        with report.step(f"send a message through nginx ({generation.domain})"):
            probe(Endpoint(generation.domain, generation.tls != "off"))
        store.record(_proven(generation))
    except (StepFailed, Unhealthy, OSError) as error:
        report.error(f"Generation {number} does not work: {error}")
        _print_log(store, generation, began, report)
        _undo(store, before, number, report)
        back = f"generation {before} runs again" if before else "nothing is installed, as before"
        raise CommandError(f"Undone: {back}.") from None
    except BaseException:
        report.error("Interrupted; going back.")
        _undo(store, before, number, report)
        raise
    store.end()


def finish_pending(store: Store, report: Report) -> bool:
    """Undo a switch that was cut short, by kill -9 or by a power cut. Whether the host now runs what is current.

    What cannot be had again does not stand in the way of what comes next, which takes nothing for granted then.
    """
    pending, sound = store.pending, True
    if pending is not None:
        aim = f"A switch to generation {pending.after}" if pending.after else "An uninstallation"
        report.line(f"{aim} was cut short; undoing it.")
        sound = _undo(store, pending.before, pending.after, report)
    store.sweep()
    return sound


@contextmanager
def _alone(store: Store, report: Report) -> Iterator[None]:
    """One installation at a time, of whatever deployment: they share nginx. However it is ended, it ends in order.

    Raises:
        CommandError: another one is under way.
    """
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(lock, report)
        report.goes_on_unheard = True
        with guarded(lambda unheard: finish_pending(store, unheard)):
            for number in _ENDINGS:
                signal.signal(number, signal.default_int_handler)
            yield
    except KeyboardInterrupt:
        report.error("Interrupted.")
        raise
    finally:
        os.close(lock)


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
    os.pwrite(lock, str(os.getpid()).encode(), 0)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is under way is brought to its end, also by the programs that are started for it."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _must_be_root() -> None:
    if os.geteuid():
        raise CommandError("you are not root; run it with sudo")


def runtime_id() -> str:
    """Names the code and the requirements: the same ones give the same runtime, which is then made once."""
    digest = hashlib.sha256(run(host_facts.PYTHON, "--version").output.encode())
    for path in [ROOT / "requirements/service.txt", *_code()]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _code() -> list[Path]:
    return sorted(path for path in (ROOT / "service").iterdir() if path.suffix in (".py", ".html", ".js"))


def _undo(store: Store, before: int | None, after: int | None, report: Report) -> bool:
    """Back to `before`, from wherever a switch to `after` has got to: nothing is taken for granted.

    Whether all went well; if not, the switch stays pending, and the next run does not trust what it finds.
    """
    whole = after if after is not None and store.is_whole(after) else None
    if before is not None and not store.is_whole(before):
        before = None  # an uninstallation had begun to remove it
    with _undisturbed():
        todo = plan(side(store, whole), side(store, before), everything=True)
        failures = Host(store, report).switch_back(todo, before)
        if before is not None:
            put_back(store, before)
        for failure in failures:
            report.error(f"Not undone: {failure}")
        if not failures:
            store.end()
            store.sweep()
    return not failures


def _leave(store: Store, report: Report) -> list[str]:
    """Take every link away and stop what runs, of all generations that may stand on the host. What failed."""
    pending = store.pending or Pending(store.current, None)
    ends = dict.fromkeys(n for n in (pending.after, pending.before) if n is not None and store.is_whole(n))
    store.begin(Pending(pending.before, None))
    failures = []
    for number in ends:
        todo = plan(side(store, number), side(store, None), everything=True)
        failures += Host(store, report).switch_back(todo, None)
    return failures


def _purge(name: str, user: str) -> None:
    for directory in (f"/var/lib/{name}", f"/var/log/{name}", f"/etc/{name}"):
        shutil.rmtree(directory, ignore_errors=True)
    if _is_ours(name, user):
        run("userdel", user)
        run("groupdel", user)


def _remains(name: str, user: str) -> bool:
    return os.path.exists(f"/var/lib/{name}") or _is_ours(name, user)


def _is_ours(name: str, user: str) -> bool:
    """Whether we made a user: `user` may name one that was there before, such as www-data."""
    try:
        return pwd.getpwnam(user).pw_gecos == f"WebSocket service {name}"
    except KeyError:
        return False


def _proven(generation: Generation) -> Generation:
    return replace(generation, healthy=True, installed_at=time.time())


def _is_same(store: Store, bundle: Bundle, runtime: str) -> bool:
    """Whether exactly this is installed already."""
    if store.current is None or store.generation(store.current).runtime != runtime:
        return False
    return bool(json.loads(bundle.manifest())["files"] == list(store.manifest(store.current).values()))


def _runs(store: Store, manager: str) -> bool:
    units = ("nginx.service",) if manager == "supervisor" else ("nginx.service", *store.units)
    if not all(host_facts.is_active(unit) for unit in units):
        return False
    return manager == "systemd" or run("supervisorctl", "status", store.name).succeeded


def _drifts(store: Store, report: Report, overwrite: bool) -> list[Drift]:
    """Hand edits of what is installed.

    Raises:
        CommandError: there are some, and nobody said to overwrite them.
    """
    found = drifts(store)
    for drift in found:
        report.line(str(drift))
    if found and not overwrite:
        raise CommandError(
            "Edited by hand; take the edits into deploy.yaml, or install with --overwrite (copies are kept)."
        )
    return found


def _preflight(loaded: Loaded, store: Store, bundle: Bundle, report: Report) -> None:
    deploy, now = loaded.deploy, time.time()
    facts = gather(deploy, store, bundle)
    report.warnings(Located(loaded.origins[key], key, fault) for key, fault in certificates.warnings(deploy, now))
    unfit = [Located(loaded.origins[key], key, fault) for key, fault in certificates.faults(deploy, now)]
    report.faults(unfit)
    for warning in warnings(deploy, facts):
        report.warning(warning)
    found = list(problems(deploy, facts))
    if found or unfit:
        for problem in found:
            report.error(str(problem))
        raise CommandError("Nothing was changed.")


def gather(deploy: Deploy, store: Store, bundle: Bundle) -> Facts:
    """The facts of this host that matter for a deployment."""
    system, version = host_facts.operating_system()
    ours = store.links(store.current)
    paths = [file.path for file in bundle.files if file.installed and file.path != SHARED]
    foreign = [f"/{path}" for path in paths if path not in ours and os.path.lexists(store.root / path)]
    # A unit of ours would hide one of the same name that a package has brought.
    foreign += [path for unit in store.units if os.path.lexists(path := f"/usr/lib/systemd/system/{unit}")]
    foreign += store.strangers()
    fault = host_facts.nginx_fault()
    main = main_text()
    missing, has_route = host_facts.missing_packages(packages(deploy)), host_facts.has_route()
    return Facts(
        is_root=os.geteuid() == 0,
        system=system,
        version=version,
        has_systemd=Path("/run/systemd/system").is_dir(),
        missing_packages=missing,
        python_version=host_facts.python_version(),
        free_bytes=host_facts.free_bytes("/opt"),
        has_route=has_route,
        taken=tuple(_taken(deploy, store)),
        has_host=deploy.socket is not None or host_facts.has_address(deploy.host),
        foreign=tuple(foreign),
        nginx_fault="" if re.search(rf"/{deploy.name}(?![\w.-])", fault) else fault,  # ours is about to be replaced
        missing_includes=() if main is None else tuple(missing_includes(main)),
        nginx_carries=None if main is None else host_facts.nginx_carries(main),
        primary_group=host_facts.primary_group(service_user(deploy)),
        has_foreign_default_site=default_site.stands(store.root) and not default_site.is_debians(store.root),
        resolves=has_route and host_facts.resolves_here(deploy.domain),
        clock_behind_s=(ROOT / "pyproject.toml").stat().st_mtime - time.time(),
    )


def _taken(deploy: Deploy, store: Store) -> Iterator[Listener]:
    ours = "" if store.current is None else store.generation(store.current).listener
    wanted = [("0.0.0.0", 80)] + ([("0.0.0.0", 443)] if deploy.tls != "off" else [])
    if deploy.socket is None and ours.rpartition(":")[2] != str(deploy.port):
        wanted.append((deploy.host, deploy.port))
    for host, port in wanted:
        holder = host_facts.holder_of(host, port)
        if holder is not None and not (holder.startswith("nginx ") and port in (80, 443)):
            yield Listener(f"port {port} on {host}", holder)


def _install_packages(deploy: Deploy, report: Report) -> bool:
    """Whether there were any to install."""
    missing = host_facts.missing_packages(packages(deploy))
    if not missing:
        return False
    # No question is ever asked: not by a package, not about changed configuration, not by needrestart (Ubuntu).
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "NEEDRESTART_SUSPEND": "1"}
    apt = ("apt-get", "-q", "-y", "-o", "Dpkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
    try:
        with report.step("read the package lists"):
            must(run(*apt, "update", timeout_s=600, **quiet), "apt-get update")
        install = (*apt, "install", "--no-install-recommends")
        with report.step("download packages"):
            must(run(*install, "--download-only", *missing, timeout_s=1800, **quiet), "apt-get install")
        # From here on Ctrl-C would leave packages half installed. Of an earlier power cut that is mended first.
        with report.step(f"install {' '.join(missing)}"), _undisturbed():
            must(run("dpkg", "--configure", "--pending", timeout_s=1800, **quiet), "dpkg --configure")
            must(run(*install, *missing, timeout_s=1800, **quiet), "apt-get install")
    except StepFailed as error:
        raise CommandError(f"{error}\nThe deployment was not touched.") from None
    return True


def _make_runtime(store: Store, runtime: str, report: Report) -> None:
    """Code and virtual environment, owned by root and byte-compiled: the service can write none of it."""
    directory = store.home / "runtimes" / runtime
    if (directory / READY).exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    try:
        (directory / "service").mkdir(parents=True)
        with report.step("install the service"):
            for path in _code():
                shutil.copyfile(path, directory / "service" / path.name)
            venv = str(directory / "venv")
            must(run(*_WITH_US, host_facts.PYTHON, "-m", "venv", venv), "making a virtual environment")
            _pip(venv)
            python = f"{venv}/bin/python"
            must(run(python, "-m", "compileall", "-q", str(directory / "service"), timeout_s=120), "compiling")
        run("sync", "--file-system", str(directory), timeout_s=300)  # what is said to be ready must outlive a power cut
        (directory / READY).touch()
    except (StepFailed, OSError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        _remove_empty(store.home)
        raise CommandError(f"{error}\nThe deployment was not touched.") from None


def _pip(venv: str) -> None:
    """Install the locked requirements, and take pip away again: nothing in the runtime can change it."""
    kept = {
        name: text for name, text in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    pip = (*_WITH_US, f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input")
    requirements = ("-r", str(ROOT / "requirements/service.txt"))
    locked = ("install", "-q", "--require-hashes", "--only-binary", ":all:", "--compile", *from_wheels(), *requirements)
    must(run(*pip, *locked, timeout_s=900, **kept), "pip install")
    must(run(*pip, "uninstall", "-q", "-y", "pip", "setuptools"), "removing pip")


def _stage(deploy: Deploy, bundle: Bundle, store: Store, runtime: str, report: Report) -> int:
    number = max(store.numbers(), default=0) + 1
    with report.step(f"write generation {number}"):
        sysusers = next(file.text for file in bundle.files if file.path.startswith("etc/sysusers.d/"))
        done = subprocess.run(["systemd-sysusers", "-"], input=sysusers, text=True, capture_output=True, check=False)
        if done.returncode:
            raise CommandError(f"systemd-sysusers failed: {done.stderr.strip()}")
        generation = Generation(
            number=number,
            runtime=runtime,
            installed_at=time.time(),
            server=deploy.server,
            manager=deploy.manager,
            listener=upstream(deploy),
            domain=deploy.domain,
            tls=deploy.tls,
            default_server=deploy.nginx.default_server,
        )
        store.add(bundle, generation)
    return number


def _remove_empty(home: Path) -> None:
    """A first installation that failed before it wrote anything leaves no directory."""
    for directory in (home / "runtimes", home):
        with suppress(OSError):
            directory.rmdir()


def _print_log(store: Store, generation: Generation, began: float, report: Report) -> None:
    if generation.manager == "systemd":
        said = host_facts.log_of(store.units, began)
    else:
        said = run("tail", "-n", "20", f"/var/log/{store.name}/{store.name}.log").output
    report.error("\n".join(f"  {line}" for line in said.splitlines()) or "  (its log is empty)")


def _user_of(store: Store) -> str | None:
    numbers = [number for number in store.numbers() if store.is_whole(number)]
    return str(store.manifest(numbers[-1])[f"etc/{store.name}/.env"]["group"]) if numbers else None


def _farewell(store: Store, report: Report) -> None:
    number = store.current
    assert number is not None
    generation = store.generation(number)
    url = f"{'ws' if generation.tls == 'off' else 'wss'}://{generation.domain}/"
    logs = (
        f"journalctl -u {store.name} -f"
        if generation.manager == "systemd"
        else f"tail -f /var/log/{store.name}/{store.name}.log"
    )
    report.line(f"Generation {number} of {store.name} runs: {url} by {generation.server} under {generation.manager}.")
    report.line(f"  try it:   /opt/{store.name}/current/venv/bin/python -m websockets {url}")
    report.line(f"  its log:  {logs}")
