"""The listening socket: systemd's, or our own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.process.listen import ListenError, listening_sockets, name_of
from service.settings import Settings
from tests.ports import free_port
from tests.service.shells import ROOT, clean_environment


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Sockets that are closed after the test."""
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def listen(opened: list[socket.socket], **settings: object) -> socket.socket:
    """The one socket that these settings ask for."""
    alone = {"port": "none", **settings} if "socket" in settings else settings
    (listener,) = listening_sockets(Settings(**alone), {})  # type: ignore[arg-type]
    opened.append(listener)
    return listener


def can_connect(listener: socket.socket) -> bool:
    with socket.socket(listener.family) as client:
        return client.connect_ex(listener.getsockname()) == 0


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1:{}"), ("::1", "[::1]:{}")])
def test_it_listens_on_the_host_and_port(opened: list[socket.socket], host: str, name: str) -> None:
    port = free_port()
    listener = listen(opened, host=host, port=port)
    assert can_connect(listener)
    assert name_of(listener) == name.format(port)
    assert listener.proto == socket.IPPROTO_TCP  # or asyncio leaves TCP_NODELAY out


def test_a_port_in_use_is_refused_with_the_mend(opened: list[socket.socket]) -> None:
    port = free_port()
    listen(opened, port=port)
    with pytest.raises(ListenError) as refused:
        listen(opened, port=port)
    assert str(refused.value) == (
        f"cannot listen on 127.0.0.1:{port}: the port is in use; "
        f"stop what listens there (ss -ltnp 'sport = :{port}'), or choose another port"
    )


def test_a_port_is_taken_again_while_its_last_connections_are_in_time_wait(opened: list[socket.socket]) -> None:
    port = free_port()
    listener = listen(opened, port=port)
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = listener.accept()
        listener.close()
        accepted.close()  # who closes first has the TIME_WAIT
        assert client.recv(1) == b""
    assert can_connect(listen(opened, port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "1.2.3.4.5", "::::"])
def test_an_address_of_another_host_is_refused_with_the_mend(opened: list[socket.socket], host: str) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on .*; use an address of this host"):
        listen(opened, host=host, port=free_port())


def test_a_unix_socket_is_for_its_owner_and_its_group_only(opened: list[socket.socket], tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    before = os.umask(0)
    try:
        listener = listen(opened, socket=str(path))
    finally:
        assert os.umask(before) == 0  # it was put back
    assert can_connect(listener)
    assert name_of(listener) == str(path)
    assert oct(path.stat().st_mode & 0o777) == "0o660"


def test_the_socket_file_of_a_dead_process_is_replaced(opened: list[socket.socket], tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    listen(opened, socket=str(path)).close()
    assert path.exists()
    assert can_connect(listen(opened, socket=str(path)))


def test_it_listens_for_nginx_and_for_programs_of_the_host(opened: list[socket.socket], tmp_path: Path) -> None:
    port, path = free_port(), str(tmp_path / "ws.sock")
    opened += listening_sockets(Settings(port=port, socket=path), {})
    assert [name_of(each) for each in opened] == [f"127.0.0.1:{port}", path]
    assert all(map(can_connect, opened))


def test_nothing_is_half_open_where_one_of_them_cannot_be(opened: list[socket.socket], tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ListenError, match=r"cannot listen on .*nowhere/ws\.sock"):
        listening_sockets(Settings(port=port, socket=str(tmp_path / "nowhere/ws.sock")), {})
    assert can_connect(listen(opened, port=port))


def test_nothing_to_listen_on_is_told_with_the_fix() -> None:
    with pytest.raises(ListenError) as refused:
        listening_sockets(Settings(port="none"), {})
    assert str(refused.value) == (
        "cannot listen on anything: WEBSOCKET_PORT is none, and WEBSOCKET_SOCKET is not set; set one of them"
    )


@pytest.mark.parametrize("backlog", [8, 0])
def test_the_socket_of_a_live_process_is_refused_however_busy_it_is(tmp_path: Path, backlog: int) -> None:
    path = str(tmp_path / "ws.sock")
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waiting:
        live.bind(path)
        live.listen(backlog)
        waiting.connect(path)
        with pytest.raises(ListenError) as refused:
            listen([], socket=path)
        assert str(refused.value) == (
            f"cannot listen on {path}: the socket is in use; stop the process that listens there (ss -lxp)"
        )


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="it is not a socket; choose another path, or remove it"):
        listen([], socket=str(path))
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ws.sock"
    with pytest.raises(ListenError, match=f"cannot listen on {path}: No such file or directory; make its directory"):
        listen([], socket=str(path))


def passed(*arguments: str, sockets: list[int], **variables: str) -> "subprocess.CompletedProcess[str]":
    """What a process finds to which systemd has passed these descriptors, from 3 on."""
    program = (
        "import os, sys; from service.process.listen import *; from service.settings import Settings\n"
        "os.environ['LISTEN_PID'] = sys.argv[1] or str(os.getpid())\n"
        "for stored in stored_descriptors(os.environ): print(*stored)\n"
        "try: found = listening_sockets(Settings(port=int(sys.argv[2])), os.environ)\n"
        "except ListenError as error: sys.exit(str(error))\n"
        "print(*map(name_of, found), *(found[0].get_inheritable(), *filter(lambda v: 'LISTEN' in v, os.environ)))"
    )

    def as_systemd_does() -> None:
        for number, descriptor in enumerate(sockets):
            os.dup2(descriptor, 3 + number)

    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=clean_environment(**variables),
        preexec_fn=as_systemd_does,
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_sockets_that_systemd_passes_are_used_in_place_of_our_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "ws.sock"))
        unix.listen()
        found = passed("", "8765", sockets=[tcp.fileno(), unix.fileno()], LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
        assert found.stdout.split() == [name_of(tcp), name_of(unix), "False"], found.stderr


def test_what_was_stored_is_no_listener_wherever_it_stands() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.create_server(("127.0.0.1", 0)) as other:
        sockets = [other.fileno(), tcp.fileno(), other.fileno()]
        found = passed("", "8765", sockets=sockets, LISTEN_FDS="3", LISTEN_FDNAMES="clients-1:x.socket:clients-2")
        assert found.stdout.splitlines() == ["clients-1 3", "clients-2 5", f"{name_of(tcp)} False"], found.stderr


def test_a_name_too_few_makes_no_listener_disappear() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        found = passed("", "8765", sockets=[tcp.fileno(), tcp.fileno()], LISTEN_FDS="2", LISTEN_FDNAMES="x.socket")
        assert found.stdout.split() == [name_of(tcp), name_of(tcp), "False"], found.stderr


@pytest.mark.parametrize(("pid", "number"), [("1", "1"), ("", "0"), ("", "one"), ("", "²")])
def test_sockets_that_were_passed_to_another_process_are_left_alone(pid: str, number: str) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = passed(pid, str(port), sockets=[other.fileno()], LISTEN_FDS=number)
        assert found.stdout.split() == [f"127.0.0.1:{port}", "False"], found.stderr


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_passed_socket_that_does_not_listen_is_refused(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as idle:
        found = passed("", "8765", sockets=[idle.fileno()], LISTEN_FDS="1")
    assert found.stderr == (
        "cannot listen on descriptor 3: it is not a listening stream socket; "
        "give the .socket unit ListenStream= lines only, and Accept=no\n"
    )


def test_a_passed_socket_that_listens_for_packets_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        packets.bind(str(tmp_path / "packets"))
        packets.listen()
        found = passed("", "8765", sockets=[packets.fileno()], LISTEN_FDS="1")
    assert "it is not a listening stream socket" in found.stderr


def test_a_passed_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        found = passed("", "8765", sockets=[file.fileno()], LISTEN_FDS="1")
    assert found.stderr.startswith("cannot listen on descriptor 3: Socket operation on non-socket; ")
