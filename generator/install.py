"""`wsbundle install`, `rollback` and `uninstall`: from one generation to another, or not at all."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from generator import certificates
from generator import facts as host_facts
from generator.apply import SHARED, Host, StepFailed, must, side
from generator.bundle import Bundle
from generator.certificates import Place
from generator.document import Located
from generator.drift import Drift, drifts, keep_copy
from generator.environment import from_wheels
from generator.facts import Facts, Listener, run
from generator.judge import judge
from generator.load import Loaded
from generator.preflight import packages, problems, warnings
from generator.probe import Endpoint, Unhealthy, probe
from generator.render import upstream
from generator.report import CommandError, Report
from generator.schema import Deploy
from generator.store import READY, Generation, Pending, Store, sync
from generator.switch import plan

ROOT = Path(__file__).parent.parent
KEPT_GENERATIONS = 5
_LOCK = "/run/lock/wsbundle.lock"


def install(loaded: Loaded, bundle: Bundle, report: Report, overwrite: bool) -> int:
    """Make the host run this bundle; on any failure it runs what it ran before."""
    deploy, store = loaded.deploy, Store(loaded.deploy.name)
    os.umask(0o022)
    with host_lock():
        finish_pending(store, report)
        found = _drifts(store, report, overwrite)
        runtime = runtime_id()
        if not found and _is_current(store, bundle, runtime, deploy):
            certificates.obtain(deploy, Place(deploy.name), report)
            report.line(f"Nothing to do: generation {store.current} of {store.name} is current and runs.")
            return 0
        _preflight(loaded, store, bundle, report)
        if _install_packages(deploy, report):
            judge(loaded, bundle, report)  # the readers that were not at hand before
        _make_runtime(store, runtime, report)
        number = _stage(deploy, bundle, store, runtime, report)
        for drift in found:
            keep_copy(drift, store)
        change(store, number, report, everything=bool(found))
        pruned = store.prune(KEPT_GENERATIONS)
        report.fact(generation=number, pruned=pruned)
        certificates.obtain(deploy, Place(deploy.name), report)
        _farewell(store, report)
    return 0


def rollback(name: str, number: int | None, report: Report) -> int:
    """Make an earlier generation current again; by default the newest healthy one before the current."""
    store = Store(name)
    with host_lock():
        finish_pending(store, report)
        healthy = [
            n for n in store.numbers() if store.is_whole(n) and store.generation(n).healthy and n != store.current
        ]
        earlier = [n for n in healthy if store.current is None or n < store.current]
        target = number if number is not None else (earlier[-1] if earlier else None)
        if target is None or target not in store.numbers():
            kept = ", ".join(map(str, healthy)) or "none"
            raise CommandError(f"{name} has no such generation to go back to; kept and healthy: {kept}")
        change(store, target, report)
        _farewell(store, report)
    return 0


def uninstall(name: str, report: Report, purge: bool) -> int:
    """Remove exactly what was installed; with `purge` also data and user."""
    store = Store(name)
    with host_lock():
        finish_pending(store, report)
        if store.current is None and not store.home.exists():
            report.line(f"Nothing to do: {name} is not installed.")
            return 0
        user = _user_of(store)
        store.begin(Pending(store.current, None))
        Host(store, report).switch(plan(side(store, store.current), side(store, None)), None)
        store.end()
        certificates.forget(Place(name), report, purge)
        with report.step(f"remove /opt/{name}"):
            shutil.rmtree(store.home)
            shutil.rmtree(f"/run/{name}", ignore_errors=True)
        if purge:
            with report.step("remove data and user"):
                for directory in (f"/var/lib/{name}", f"/var/log/{name}", f"/etc/{name}"):
                    shutil.rmtree(directory, ignore_errors=True)
                run("userdel", user)
                run("groupdel", user)
        report.line(f"{name} is gone" + ("" if purge else f"; its data is kept in /var/lib/{name}"))
    return 0


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
        host.switch(plan(side(store, before), side(store, number), everything), number)
        with report.step(f"send a message through nginx ({generation.domain})"):
            probe(Endpoint(generation.domain, generation.tls != "off"))
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
    store.record(_proven(generation))
    store.end()


def finish_pending(store: Store, report: Report) -> None:
    """Undo a switch that was cut short: by kill -9, by a power cut."""
    pending = store.pending
    if pending is not None:
        report.line(f"A switch to generation {pending.after} was cut short; undoing it.")
        _undo(store, pending.before, pending.after, report)


@contextmanager
def host_lock() -> Iterator[None]:
    """One installation at a time, of whatever deployment: they share nginx.

    Raises:
        CommandError: another one is under way.
    """
    try:
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        raise CommandError("you are not root; run it with sudo") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    except BlockingIOError:
        holder = os.read(lock, 20).decode() or "another process"
        raise CommandError(f"another installation is under way (process {holder}); wait for its end") from None
    finally:
        os.close(lock)


def runtime_id() -> str:
    """Names the code and the requirements: the same ones give the same runtime, which is then made once."""
    digest = hashlib.sha256(run(host_facts.PYTHON, "--version").output.encode())
    for path in [ROOT / "requirements/service.txt", *_code()]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _code() -> list[Path]:
    return sorted(path for path in (ROOT / "service").iterdir() if path.suffix in (".py", ".html", ".js"))


def _undo(store: Store, before: int | None, after: int | None, report: Report) -> None:
    """Back to `before`, from wherever a switch to `after` has got to: nothing is taken for granted."""
    whole = after if after is not None and store.is_whole(after) else None
    Host(store, report).switch(plan(side(store, whole), side(store, before), everything=True), before)
    if whole is not None and not store.generation(whole).healthy:
        shutil.rmtree(store.directory(whole))
    store.end()


def _proven(generation: Generation) -> Generation:
    return replace(generation, healthy=True, installed_at=time.time())


def _is_current(store: Store, bundle: Bundle, runtime: str, deploy: Deploy) -> bool:
    """Whether the host runs exactly this already."""
    if store.current is None or store.generation(store.current).runtime != runtime:
        return False
    if json.loads(bundle.manifest())["files"] != list(store.manifest(store.current).values()):
        return False
    if deploy.manager == "supervisor":
        return run("supervisorctl", "status", store.name).succeeded
    return host_facts.is_active(f"{store.name}.service") and host_facts.is_active(f"{store.name}.socket")


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
        report.error(f"warning: {warning}")
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
    if store.home.exists() and not (store.home / "generations").is_dir():
        foreign.append(str(store.home))
    missing = host_facts.missing_packages(packages(deploy))
    return Facts(
        is_root=os.geteuid() == 0,
        system=system,
        version=version,
        has_systemd=Path("/run/systemd/system").is_dir(),
        missing_packages=missing,
        python_version=host_facts.python_version(),
        free_bytes=host_facts.free_bytes("/opt"),
        has_route=host_facts.has_route(),
        taken=tuple(_taken(deploy, store, "nginx" in missing)),
        foreign=tuple(foreign),
        nginx_fault=host_facts.nginx_fault(),
        resolves=host_facts.resolves_here(deploy.domain),
        clock_behind_s=(ROOT / "pyproject.toml").stat().st_mtime - time.time(),
    )


def _taken(deploy: Deploy, store: Store, installs_nginx: bool) -> Iterator[Listener]:
    wanted: list[tuple[str, int]] = []
    listener = upstream(deploy)
    if deploy.socket is None and (store.current is None or store.generation(store.current).listener != listener):
        wanted.append((deploy.host, deploy.port))
    if installs_nginx:
        wanted += [("0.0.0.0", 80)] + ([("0.0.0.0", 443)] if deploy.tls != "off" else [])
    for host, port in wanted:
        holder = host_facts.holder_of(host, port)
        if holder is not None:
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
        with report.step(f"install {' '.join(missing)}"):
            must(run(*apt, "install", "--no-install-recommends", *missing, timeout_s=1800, **quiet), "apt-get install")
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
            must(run(host_facts.PYTHON, "-m", "venv", venv), "making a virtual environment")
            _pip(venv)
            python = f"{venv}/bin/python"
            must(run(python, "-m", "compileall", "-q", str(directory / "service"), timeout_s=120), "compiling")
        (directory / READY).touch()
        subprocess.run(["sync", "-f", str(directory)], check=True)
    except (StepFailed, OSError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise CommandError(f"{error}\nThe deployment was not touched.") from None


def _pip(venv: str) -> None:
    """Install the locked requirements, and take pip away again: nothing in the runtime can change it."""
    kept = {
        name: text for name, text in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    pip = (f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input")
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
        )
        store.add(bundle, generation)
        sync(store.home / "generations")
    return number


def _print_log(store: Store, generation: Generation, began: float, report: Report) -> None:
    if generation.manager == "systemd":
        said = host_facts.log_of(f"{store.name}.service", began)
    else:
        said = run("tail", "-n", "20", f"/var/log/{store.name}/{store.name}.log").output
    report.error("\n".join(f"  {line}" for line in said.splitlines()) or "  (its log is empty)")


def _user_of(store: Store) -> str:
    numbers = [number for number in store.numbers() if store.is_whole(number)]
    entries: Mapping[str, Any] = store.manifest(numbers[-1]) if numbers else {}
    return str(entries.get(f"etc/{store.name}/.env", {}).get("group", store.name))


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
