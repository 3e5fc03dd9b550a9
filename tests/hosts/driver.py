"""Throw-away Debian hosts: systemd is PID 1, apt and pip reach the registries, a power cut is one call.

A host is a stack of read-only layers and a writable one on top (overlayfs), booted by systemd-nspawn in a network
namespace of its own. slirp4netns is its way out, so this machine neither forwards nor filters anything; a veth pair is
the way in. How this machine reaches its registries (apt archives and options, pip's settings, CA certificates,
resolver) is copied into the base, whatever it is. Needs root. Everything but the cached bases goes away with the host.

Ubuntu's own archive is not among these registries, so `resolute` is the Debian release that has the same programs, made
into what Ubuntu 26.04 is by ubuntu.sh: coreutils in Rust, sudo-rs, and a user `ubuntu` who works with `sudo`.
"""

import configparser
import ctypes
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CACHE = Path(os.environ.get("WSBUNDLE_HOSTS", "/var/cache/wsbundle-hosts"))
PROGRAMS = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "slirp4netns": "slirp4netns"}
PROGRAMS |= {"ip": "iproute2", "nsenter": "util-linux"}
IN_EVERY_BASE = "systemd,systemd-sysv,dbus,libpam-systemd,ca-certificates"
_UBUNTU = Path(__file__).with_name("ubuntu.sh")
_MADE_OF = {"resolute": "forky"}
_MADE_WITH = {"resolute": "rust-coreutils,sudo-rs"}
BOOT_S = 180.0  # on a busy machine
_REBOOT = 133  # systemd-nspawn's exit code when the guest wants to be started again
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = "usr/local/share/ca-certificates"
_numbers = itertools.count()


def why_not() -> str | None:
    """Why this machine cannot make hosts; None when it can."""
    if os.geteuid():
        return "hosts need root"
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        return f"hosts need {' '.join(missing)}"
    return None if _archives("bookworm") else "apt knows no Debian archive on this machine"


def base(suite: str, packages: str = "") -> Path:
    """A root file system with `packages` beside what every Debian server has; built once and cached."""
    sources = "".join(f"deb {uri} {release} main\n" for uri, release in _archives(_MADE_OF.get(suite, suite)))
    options = _apt_options()
    packages = ",".join(filter(None, [packages, _MADE_WITH.get(suite)]))
    ingredients = [sources, options, packages, _pip_settings()]
    ingredients += [_UBUNTU.read_text()] if suite in _MADE_OF else []
    key = hashlib.sha256(repr(tuple(ingredients)).encode()).hexdigest()[:8]
    target = CACHE / f"debian-{suite}-{key}"
    with taking_turns(suite):
        if not target.exists():
            _build(suite, packages, sources, options, target)
    return target


def _build(suite: str, packages: str, sources: str, options: Sequence[str], target: Path) -> None:
    building = CACHE / f"building-{os.getpid()}-{suite}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    (building / "sources").write_text(sources)
    root, include = building / "root", ",".join(filter(None, [IN_EVERY_BASE, packages]))
    told = [*(f"--aptopt={line}" for line in options), _MADE_OF.get(suite, suite)]
    _run("mmdebstrap", "--mode=root", "--format=directory", "--variant=important", f"--include={include}",
         *told, root, building / "sources", env={**os.environ, "TMPDIR": str(building)})  # fmt: skip
    (root / "etc/apt/apt.conf.d/90registry").write_text("\n".join(options) + "\n")
    (root / "etc/pip.conf").write_text(_pip_settings())
    for certificate in Path("/", _CERTIFICATES).rglob("*.crt"):
        shutil.copy(certificate, root / _CERTIFICATES)
    _run("chroot", root, "update-ca-certificates")
    if suite in _MADE_OF:
        _run("chroot", root, "sh", "-c", _UBUNTU.read_text())
    root.chmod(0o755)
    root.rename(target)
    shutil.rmtree(building)


@contextmanager
def taking_turns(suite: str) -> Iterator[None]:
    """Two runs at once build no base twice."""
    with (CACHE / f".lock-{suite}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Host:
    """One host. `layers` are root file systems or differences to them, the topmost first."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self.name = f"wsbundle-{os.getpid()}-{next(_numbers)}"
        self.directory = CACHE / self.name
        self.root, self.upper = self.directory / "root", self.directory / "upper"
        self.console = self.directory / "console"
        self.address = ""
        self.user, self.home = "root", "/root"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._slirp: subprocess.Popen[bytes] | None = None
        self._boots = 0
        self._leads: int | None = None
        try:
            for path in (self.root, self.upper, self.directory / "work"):
                path.mkdir(parents=True)
            stack = f"lowerdir={':'.join(map(str, layers))},upperdir={self.upper},workdir={self.directory / 'work'}"
            # `volatile`: what is synced need not survive this machine, and apt syncs a lot. `redirect_dir`: directories
            # of a lower layer can be renamed, as on any disk.
            _run("mount", "-t", "overlay", self.name, "-o", f"{stack},volatile,redirect_dir=on", self.root)
            if (self.root / "home/ubuntu").is_dir():
                self.user, self.home = "ubuntu", "/home/ubuntu"
            (self.root / "etc/hostname").write_text("fresh\n")
            (self.root / "etc/hosts").write_text("127.0.0.1 localhost fresh\n::1 localhost\n")
            (self.root / "etc/resolv.conf").unlink(missing_ok=True)
            (self.root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")  # slirp4netns asks this machine's
            self._plug_in()
        except BaseException:
            self.destroy()
            raise

    def _plug_in(self) -> None:
        _run("ip", "netns", "add", self.name)
        for number in range(1, 255):
            here, there = f"wsb{number}", f"10.199.{number}"
            made = _run("ip", "link", "add", here, "type", "veth", "peer", "name", "host0", "netns", self.name, check=0)
            if made.returncode == 0:
                break
        _run("ip", "addr", "add", f"{there}.1/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        for words in (f"addr add {there}.2/30 dev host0", "link set host0 up", "link set lo up"):
            _run("ip", "-n", self.name, *words.split())
        self.address = f"{there}.2"
        self.connect()

    def connect(self) -> None:
        """Give it a way out, to the registries."""
        path = f"/run/netns/{self.name}"
        words = ("--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path", path, "tap0")
        with (self.directory / "slirp").open("wb") as log:
            self._slirp = subprocess.Popen(["slirp4netns", *words], stdout=log, stderr=log, preexec_fn=_die_with_parent)
        _await(lambda: "default" in _run("ip", "-n", self.name, "route").stdout, 60, "the way out")

    def disconnect(self) -> None:
        """Take the way out away; this machine still reaches it."""
        if self._slirp is not None:
            self._slirp.kill()
            self._slirp.wait()
            self._slirp = None

    @property
    def _cgroup(self) -> Path:
        return _cgroups() / f"{self.name}-{self._boots}"

    def boot(self) -> None:
        """Returns when systemd says that all has been started."""
        self._boots += 1  # a cgroup that was killed once is not used again: some kernels go on killing in it
        self._cgroup.mkdir()
        inside = f"/sys/fs/cgroup/{self._cgroup.name}/cgroup.procs"
        prepare = f"umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo 0 >{inside}"
        nspawn = f"""systemd-nspawn --quiet --directory={self.root} --machine={self.name} --boot --register=no
            --keep-unit --private-users=no --network-namespace-path=/run/netns/{self.name} --resolv-conf=off
            --timezone=off --link-journal=no --console=read-only --capability=all
            --drop-capability=CAP_SYS_MODULE,CAP_SYS_RAWIO,CAP_SYS_TIME""".split()
        variables = {"PATH": _PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_USE_CGNS": "1"}
        variables |= {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "SYSTEMD_NSPAWN_TMPFS_TMP": "0"}
        variables |= {"SYSTEMD_SECCOMP": "0"}  # nspawn's filter forbids bpf(2), which IPAddressDeny= needs
        with self.console.open("ab") as log:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{prepare} && exec "$@"', "sh", *nspawn],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, start_new_session=True,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._leads = None
        _await(self._is_up, BOOT_S, f"the boot of {self.name}: {self.console}")

    def _is_up(self) -> bool:
        if not self._leader():
            assert self._nspawn is not None
            assert self._nspawn.poll() is None, self.console.read_text(errors="replace")
            return False
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def _leader(self) -> int | None:
        """The guest's PID 1, as this machine numbers it.

        Once found it is remembered: a list of children may leave one out while another ends. Source: proc(5).
        """
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        if self._leads is None:
            pid = self._nspawn.pid
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with suppress(OSError):
                    if re.search(r"^NSpid:\s.*\s1$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE):
                        self._leads = int(child)
        return self._leads

    def command(self, *command: str, directory: str = "", **environment: str) -> list[str]:
        """The words that run a command inside, as root and without a terminal; in the home of who works there."""
        leader = self._leader()
        assert leader, f"{self.name} does not run"
        group = self._cgroup / "payload" / "visitors"  # as a session would be, not a process of this machine
        with suppress(OSError):
            group.mkdir(exist_ok=True)
        variables = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **_proxies(), **environment}
        join = f'echo 0 >{group}/cgroup.procs 2>/dev/null; exec "$@"'
        enter = ["nsenter", f"--target={leader}", *"--mount --uts --ipc --net --pid --cgroup --root --wd".split()]
        words = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        where = str(Path(self.home, directory))
        return ["sh", "-c", join, "sh", *enter, *words, "sh", "-c", 'cd "$0" && exec "$@"', where, *command]

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 900, directory: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; stderr goes where stdout goes."""
        return _run(*self.command(*command, directory=directory, **environment), check=check, timeout=timeout_s)

    def push(self, paths: Sequence[Path], directory: str) -> None:
        """Copy files and directories into a directory of the host, for root."""
        target = self.root / directory.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        _run("cp", "-r", "--no-preserve=ownership", *paths, target)

    def cut_power(self) -> None:
        """Everything in it ends at once."""
        if self._nspawn is not None:
            _kill_cgroup(self._cgroup)
            self._nspawn.kill()
            self._nspawn.wait()
            self._nspawn = None

    def shut_down(self, word: str = "poweroff") -> None:
        """Orderly; returns when it is off."""
        assert self._nspawn is not None
        self.run("systemctl", word, check=False)
        status = self._nspawn.wait(BOOT_S)
        assert status == (_REBOOT if word == "reboot" else 0), f"nspawn: {status}"
        self.cut_power()

    def reboot(self) -> None:
        """Orderly; returns when it is up again."""
        self.shut_down("reboot")
        self.boot()

    def destroy(self) -> None:
        """Leave no trace of it."""
        self.cut_power()
        self.disconnect()
        _remove(self.name)


class Network:
    """A network of these hosts alone: a switch in a namespace of its own, and a cable from it to each of them."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.name = f"wsbundle-{os.getpid()}-network{next(_numbers)}"
        self.addresses = [f"10.198.0.{number}" for number in range(1, len(hosts) + 1)]
        _run("ip", "netns", "add", self.name)
        self._at("link add switch type bridge")
        self._at("link set switch up")
        for number, (host, address) in enumerate(zip(hosts, self.addresses, strict=True), 1):
            cable = ("link", "add", "hosts0", "type", "veth", "peer", "name", f"port{number}", "netns", self.name)
            _run("ip", "-n", host.name, *cable)
            self._at(f"link set port{number} master switch")
            self._at(f"link set port{number} up")
            _run("ip", "-n", host.name, "addr", "add", f"{address}/24", "dev", "hosts0")
            _run("ip", "-n", host.name, "link", "set", "hosts0", "up")

    def _at(self, words: str) -> None:
        _run("ip", "-n", self.name, *words.split())

    def cut(self, number: int) -> None:
        """Take the first, second or third host's cable away, at the switch: the host itself does not notice."""
        self._at(f"link set port{number} down")

    def join(self, number: int) -> None:
        self._at(f"link set port{number} up")

    def destroy(self) -> None:
        _run("ip", "netns", "del", self.name, check=False)


def sweep() -> None:
    """Remove what runs that were killed have left behind."""
    for directory in CACHE.glob("*-[0-9]*-*"):
        pid = re.fullmatch(r"(?:wsbundle|building|layer)-(\d+)-\w+", directory.name)
        if pid and not Path(f"/proc/{pid[1]}").exists():
            _remove(directory.name)


def _remove(name: str) -> None:
    for group in _cgroups().glob(f"{name}-*"):
        _kill_cgroup(group)
    _run("umount", "--lazy", "--quiet", CACHE / name / "root", check=False)
    _run("ip", "netns", "del", name, check=False)  # and with it the veth pair
    shutil.rmtree(CACHE / name, ignore_errors=True)


def _kill_cgroup(group: Path) -> None:
    with suppress(OSError):
        (group / "cgroup.kill").write_text("1")
    with suppress(OSError):
        _await(lambda: "populated 0" in (group / "cgroup.events").read_text(), 10, f"the end of {group}")
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()


def _cgroups() -> Path:
    """Where this machine has its cgroups of version 2, also beside those of version 1."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next(Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2")


def _archives(suite: str) -> list[tuple[str, str]]:
    """`(uri, release)` of a suite, from the archives that this machine's own suite comes from."""
    found = re.search(r'^VERSION_CODENAME="?(\w+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    own = found[1] if found else ""
    words = ("--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages", "Component: main")
    lines = sorted(set(_run("apt-get", "indextargets", *words, check=False).stdout.splitlines()))
    pattern = re.compile(rf"(\S+) {own}(|-updates|-security)")
    return [(m[1], suite + m[2]) for line in lines if (m := pattern.fullmatch(line)) and "debian" in line]


def _apt_options() -> list[str]:
    wanted = re.compile(r"Acquire::(https?|Retries|ForceIPv\d|Check-Valid-Until|Check-Date)\b.* \"[^\"]+\";")
    return [line for line in _run("apt-config", "dump").stdout.splitlines() if wanted.match(line)]


def _pip_settings() -> str:
    """What of pip's settings here makes sense elsewhere: not the paths of this machine."""
    found = configparser.RawConfigParser()
    for file in ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf"):
        found.read(Path(file).expanduser())
    settings = dict(found.items("global")) if found.has_section("global") else {}
    settings |= {name[4:].lower().replace("_", "-"): text for name, text in os.environ.items() if name[:4] == "PIP_"}
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt"]
    for name in ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "retries"):
        words = [word for word in settings.get(name, "").split() if not word.startswith(("file:", "/"))]
        lines += [f"{name} = {' '.join(words)}"] if words else []
    return "\n".join(lines) + "\n"


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def _run(*command: object, check: bool | int = True, **options: object) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command[-3:]}: exit code {done.returncode}\n{done.stdout}"
    return done


def _await(condition, limit_s: float, what: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what}"
        time.sleep(0.05)


def _die_with_parent() -> None:
    """In a child: end when this process ends, even if it is killed. Source: prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
