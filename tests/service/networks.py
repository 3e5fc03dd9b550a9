"""Hosts that have a network of their own each, and one where the engine is: namespaces of the kernel, joined by cables.

Needs root. Whatever the test starts, or connects to, while it is `inside` a network, is there.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# Of the engine; each host reaches it by its own cable.
ENGINE = "10.78.0.1"
_CLONE_NEWNET = 0x40000000  # sched.h

needs_networks = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root, and `ip`: apt-get install iproute2"
)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=60)


class Networks:
    """One of the engine, and one for each host."""

    def __init__(self, *hosts: str) -> None:
        # The names of cables have 15 characters at most.
        self._engine = f"e{os.getpid()}"
        self._names = {host: f"{self._engine}{host}" for host in hosts}
        self._here = os.open("/proc/self/ns/net", os.O_RDONLY)
        for name in (self._engine, *self._names.values()):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", self._engine, "address", "add", f"{ENGINE}/32", "dev", "lo")
        for number, name in enumerate(self._names.values(), 1):
            near, far = f"10.78.{number}.2", f"10.78.{number}.1"
            _ip("link", "add", name, "netns", self._engine, "type", "veth", "peer", "name", "engine", "netns", name)
            for space, device, address in ((self._engine, name, far), (name, "engine", near)):
                _ip("-n", space, "address", "add", f"{address}/24", "dev", device)
                _ip("-n", space, "link", "set", device, "up")
            _ip("-n", name, "route", "add", "default", "via", far)

    @contextlib.contextmanager
    def inside(self, host: str = "") -> Iterator[None]:
        """This thread is in the network of a host, or of the engine."""
        descriptor = os.open(Path("/run/netns", self._names.get(host, self._engine)), os.O_RDONLY)
        try:
            _enter(descriptor)
            yield
        finally:
            _enter(self._here)
            os.close(descriptor)

    def cut(self, host: str) -> None:
        """Pull the plug at the far end: nobody is told."""
        _ip("-n", self._engine, "link", "set", self._names[host], "down")

    def join(self, host: str) -> None:
        """Put it in again."""
        _ip("-n", self._engine, "link", "set", self._names[host], "up")

    def close(self) -> None:
        """Take all of them away."""
        for name in (self._engine, *self._names.values()):
            _ip("netns", "delete", name)
        os.close(self._here)


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
