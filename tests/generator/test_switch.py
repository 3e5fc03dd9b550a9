"""What a switch between two generations takes: nothing but what the difference asks for."""

import json

import pytest
from msgspec import structs

from generator.config.load import load_text
from generator.host.apply import RESTART_S
from generator.host.store import READ_EARLY
from generator.host.switch import Side, Switch, plan
from generator.rendering.render import render, replaces_workers, start_timeout, stop_timeout

NAME = "queue-websocket"


def installed(given: str = "", runtime: str = "r1", shared: str = "s1") -> Side:
    """A deployment as one end of a switch."""
    deploy = load_text(f"domain: a.org\n{given}\n", "deploy.yaml").deploy
    files = json.loads(render(deploy).manifest())["files"]
    there = {file["path"]: file for file in files if file["installed"]}
    early = {path: file["sha256"] for path, file in there.items() if path.startswith(READ_EARLY)}
    links = {path: f"/opt/{NAME}/current/{path}" for path in there if path not in early}
    return Side(
        name=NAME,
        manager=deploy.manager,
        runtime=runtime,
        manifest={file["path"]: file for file in files},
        links=links,
        files=early,
        default_server=deploy.nginx.default_server,
        replaces_workers=replaces_workers(deploy),
        shared=shared,
        engine=f"valkey-server@{NAME}.service" if deploy.engine.serve else "",
    )


def acts(switch: Switch) -> set[str]:
    """The names of what is to be done, links apart."""
    names = set(switch.__struct_fields__) - {"puts_first", "copies", "puts_then", "removes"}
    return {name for name in names if getattr(switch, name)}


def test_the_same_generation_takes_nothing() -> None:
    same = plan(installed(), installed())
    assert acts(same) == set()
    assert not same.puts
    assert not same.copies
    assert not same.removes
    assert not same.disconnects


def test_another_port_concerns_its_socket_and_the_service() -> None:
    todo = plan(installed(), installed("port: 9000"))
    assert acts(todo) == {"reloads_units", "restarts_socket", "restarts_service"}
    assert todo.disconnects


def test_another_path_of_the_socket_concerns_nginx_too() -> None:
    there = f"port: 8765\nsocket: /run/{NAME}/other.sock"
    todo = plan(installed(), installed(there))
    assert acts(todo) == {"reloads_units", "restarts_socket", "restarts_service", "reloads_nginx"}


def on_a_port_alone() -> Side:
    """As up to 0.1: nginx comes to the port, like programs of the host."""
    now = installed()
    unit, socket = (f"etc/systemd/system/{NAME}.{kind}" for kind in ("service", "nginx.socket"))
    directories, site = f"etc/tmpfiles.d/{NAME}.conf", f"etc/nginx/sites-available/{NAME}"
    manifest = now.manifest | {path: {**now.manifest[path], "sha256": "older"} for path in (unit, site)}
    manifest[directories] = {**manifest[directories], "installed": False}
    del manifest[socket]
    files = {path: digest for path, digest in now.files.items() if path not in (socket, directories)}
    return structs.replace(now, manifest=manifest, files=files | {unit: "older"})


def test_nginx_gets_a_listener_of_its_own_beside_that_of_the_port_and_back_and_nobody_is_refused() -> None:
    comes = plan(on_a_port_alone(), installed())
    # The service starts the new one; that of the port stays open.
    assert acts(comes) == {"makes_directories", "reloads_units", "restarts_service", "reloads_nginx"}
    goes = plan(installed(), on_a_port_alone())
    assert acts(goes) == acts(comes) | {"stops_nginx_socket"}
    assert f"etc/systemd/system/{NAME}.nginx.socket" in goes.removes


def test_who_has_no_port_keeps_the_listener_that_there_is() -> None:
    alone = installed(f"socket: /run/{NAME}/ws.sock")
    assert acts(plan(alone, installed("port: none"))) == set()
    assert plan(alone, installed()).restarts_socket
    back = plan(installed(), alone)
    assert (back.restarts_socket, back.stops_nginx_socket) == (True, True)


def test_under_supervisor_systemd_has_no_listener() -> None:
    assert plan(installed("manager: supervisor"), installed("manager: supervisor\nport: 9000")).restarts_socket is False
    assert not plan(installed(), installed("manager: supervisor")).stops_nginx_socket


SERVED = "engine: {serve: true, url: 'valkey://127.0.0.1:6390', user: a}"
UNIT = f"valkey-server@{NAME}.service"


def test_an_engine_is_there_before_what_connects_to_it_and_goes_when_it_is_served_no_more() -> None:
    comes, goes = plan(installed(), installed(SERVED)), plan(installed(SERVED), installed())
    assert (comes.restarts_engine, comes.stops_engine, comes.restarts_service) == (UNIT, "", True)
    assert (goes.restarts_engine, goes.stops_engine, goes.restarts_service) == ("", UNIT, True)
    assert plan(installed(SERVED), Side()).stops_engine == UNIT


def test_an_engine_goes_on_while_the_service_alone_changes() -> None:
    todo = plan(installed(SERVED), installed(f"{SERVED}\nwelcome: Hello"))
    assert acts(todo) == {"restarts_service"}


def test_an_engine_that_listens_elsewhere_is_restarted() -> None:
    todo = plan(installed(SERVED), installed(SERVED.replace("6390", "6391")))
    assert (todo.restarts_engine, todo.stops_engine) == (UNIT, "")


def test_another_welcome_concerns_the_service_alone() -> None:
    assert acts(plan(installed(), installed("welcome: Hello"))) == {"restarts_service"}


@pytest.mark.parametrize(
    ("before", "after", "stay"),
    [("1", "1", True), ("1", "2", False), ("", "1", False), ("1", "", False), ("", "", False)],
)
def test_clients_stay_if_both_sides_keep_them_in_the_same_way(before: str, after: str, stay: bool) -> None:
    old, new = structs.replace(installed(), keeps=before), structs.replace(installed(runtime="r2"), keeps=after)
    todo = plan(old, new)
    assert todo.restarts_service
    assert todo.replaces_processes
    assert todo.keeps_clients is stay
    assert todo.disconnects is not stay


@pytest.mark.parametrize(
    ("is_joined", "stay"),
    [((False, False), True), ((True, True), True), ((True, False), False), ((False, True), False)],
)
def test_a_reload_keeps_clients_unless_an_engine_comes_or_goes(is_joined: tuple[bool, bool], stay: bool) -> None:
    old, new = (
        structs.replace(installed("workers: 2"), keeps="1", runtime=runtime, is_joined=joined)
        for runtime, joined in zip(("r1", "r2"), is_joined, strict=True)
    )
    todo = plan(old, new)
    assert todo.reloads_service
    assert todo.keeps_clients is stay
    assert todo.disconnects is not stay


def test_clients_are_kept_by_systemd_alone() -> None:
    there = structs.replace(installed(), keeps="1")
    for other in (structs.replace(installed("manager: supervisor"), keeps="1"), Side()):
        assert plan(there, other).disconnects
        assert not plan(there, other).keeps_clients


def test_another_limit_of_nginx_disconnects_nobody() -> None:
    todo = plan(installed(), installed("limits: {handshakes_per_second: 5}"))
    assert acts(todo) == {"reloads_nginx"}
    assert not todo.disconnects


def test_a_default_server_of_ours_takes_nginxs_default_site_away_and_leaving_it_brings_that_back() -> None:
    alone, among_others = installed("nginx: {default_server: true}"), installed()
    assert acts(plan(among_others, alone)) == {"takes_default_site", "reloads_nginx"}
    assert acts(plan(alone, among_others)) == {"returns_default_site", "reloads_nginx"}
    assert "returns_default_site" in acts(plan(alone, Side()))
    assert acts(plan(alone, alone)) == set()


def test_other_code_restarts_the_service() -> None:
    assert acts(plan(installed(), installed(runtime="r2"))) == {"restarts_service"}


@pytest.mark.parametrize("server", ["uvicorn", "standalone"])
@pytest.mark.parametrize(
    ("given", "runtime"),
    [("workers: 4, welcome: Hello", "r1"), ("workers: 4", "r2"), ("workers: 2", "r1"), ("workers: auto", "r1")],
)
def test_several_workers_of_ours_are_reloaded_in_place_of_a_restart(given: str, runtime: str, server: str) -> None:
    before, after = f"{{server: {server}, workers: 4}}", f"{{server: {server}, {given}}}"
    todo = plan(several(before), several(after, runtime))
    assert acts(todo) == {"reloads_service"}
    assert todo.disconnects
    assert acts(plan(several(after, runtime), several(before))) == {"reloads_service"}


def several(given: str, runtime: str = "r1", shared: str = "s1") -> Side:
    return installed(given[1:-1].replace(", ", "\n"), runtime, shared)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{workers: 1}", "{workers: 4}"),
        ("{workers: 4}", "{workers: 1}"),
        ("{server: gunicorn, workers: 4}", "{server: gunicorn, workers: 4}"),
        ("{server: uvicorn, workers: 4}", "{server: standalone, workers: 4}"),
        ("{workers: 4}", "{workers: 4, drain: {timeout: 20}}"),  # another unit
        ("{workers: 4}", "{workers: 4, port: 9000}"),  # another socket
        ("{workers: 4}", "{workers: 4, bus: /run/queue-websocket/elsewhere}"),
    ],
)
def test_where_a_reload_would_not_suffice_the_service_restarts(before: str, after: str) -> None:
    done = acts(plan(several(before), several(after, runtime="r2")))
    assert "restarts_service" in done
    assert "reloads_service" not in done


def test_workers_that_would_not_understand_each_other_are_restarted() -> None:
    before, after = several("{workers: 4}"), several("{workers: 4}", runtime="r2", shared="s2")
    assert acts(plan(before, after)) == {"restarts_service"}


def test_a_generation_of_before_there_were_reloads_is_restarted() -> None:
    old, new = several("{workers: 4}"), several("{workers: 4}", runtime="r2")
    unaware = structs.replace(old, replaces_workers=False)
    assert acts(plan(unaware, new)) == acts(plan(new, unaware)) == {"restarts_service"}


def test_several_workers_and_nothing_new_for_them_take_nothing() -> None:
    before, after = several("{workers: 4}"), several("{workers: 4, limits: {handshakes_per_second: 5}}")
    assert acts(plan(before, before)) == set()
    assert acts(plan(before, after)) == {"reloads_nginx"}


def test_under_supervisor_several_workers_are_restarted() -> None:
    before, after = "{manager: supervisor, workers: 4}", "{manager: supervisor, workers: 4, welcome: Hello}"
    assert acts(plan(several(before), several(after))) == {"restarts_program"}
    assert acts(plan(several(before), several("{workers: 4}"))) >= {"stops_supervisor", "restarts_service"}


def test_other_code_restarts_the_program_under_supervisor() -> None:
    under = "manager: supervisor"
    assert acts(plan(installed(under), installed(under, runtime="r2"))) == {"restarts_program"}


@pytest.mark.parametrize(
    ("before", "after", "stops", "starts"),
    [
        ("", "manager: supervisor", "stops_systemd", "updates_supervisor"),
        ("manager: supervisor", "", "stops_supervisor", "restarts_service"),
    ],
)
def test_another_manager_stops_the_old_one_and_starts_the_new(before: str, after: str, stops: str, starts: str) -> None:
    todo = plan(installed(before), installed(after))
    assert {stops, starts} <= acts(todo)
    assert todo.disconnects
    assert set(todo.removes) == paths(installed(before)) - paths(installed(after))


def paths(side: Side) -> set[str]:
    return set(side.links) | set(side.files)


def test_a_first_installation_stops_nothing_and_puts_every_link_and_file() -> None:
    todo = plan(Side(), installed())
    assert todo.puts == installed().links
    assert set(todo.copies) == set(installed().files)
    assert not {"stops_systemd", "stops_supervisor"} & acts(todo)
    assert {"restarts_socket", "restarts_service", "reloads_nginx"} <= acts(todo)


UNITS = tuple(f"etc/systemd/system/{NAME}.{kind}" for kind in ("nginx.socket", "service", "socket"))
WANTS = {
    f"etc/systemd/system/sockets.target.wants/{NAME}.socket": f"/etc/systemd/system/{NAME}.socket",
    f"etc/systemd/system/multi-user.target.wants/{NAME}.service": f"/etc/systemd/system/{NAME}.service",
}


def test_units_are_copies_of_the_current_generation_and_stand_before_they_are_wanted() -> None:
    before, after = installed("manager: supervisor"), installed()
    after.links.update(WANTS)
    todo = plan(before, after)
    assert todo.puts_first == {}
    assert todo.copies == (*UNITS, f"etc/tmpfiles.d/{NAME}.conf")
    assert todo.puts_then == WANTS
    assert todo.reloads_units


def test_a_unit_that_stays_as_it_is_is_not_touched() -> None:
    todo = plan(installed(), installed("welcome: Hello"))
    assert todo.copies == ()
    assert not todo.reloads_units


def test_units_that_an_older_release_has_linked_become_files_and_links_again_when_that_is_undone() -> None:
    new = installed()
    links = new.links | {path: f"/opt/{NAME}/current/{path}" for path in new.files}
    old = structs.replace(new, links=links, files={})
    todo = plan(old, new)
    assert set(todo.copies) == set(new.files)
    assert todo.removes == ()
    assert todo.reloads_units
    back = plan(new, old)
    assert set(back.puts) == set(new.files)
    assert back.removes == ()
    assert back.reloads_units


def test_what_the_new_server_reads_stands_before_the_generation_is_current() -> None:
    todo = plan(installed(), installed("server: gunicorn"))
    assert set(todo.puts_first) == {f"etc/{NAME}/gunicorn.conf.py"}
    assert todo.puts_then == {}


def test_supervisor_hears_of_a_program_once_the_directory_for_its_log_is_made_at_boot() -> None:
    todo = plan(installed(), installed("manager: supervisor"))
    assert f"etc/tmpfiles.d/{NAME}.conf" in todo.copies
    assert set(todo.puts_then) == {f"etc/supervisor/conf.d/{NAME}.conf"}
    first = list(plan(Side(), installed("manager: supervisor")).puts_then)
    assert first[-1] == f"etc/supervisor/conf.d/{NAME}.conf"


def test_no_link_stands_before_what_it_leads_to() -> None:
    after = installed()
    after.links.update(WANTS)
    assert plan(Side(), after).puts_first == {}
    older = installed()
    del older.manifest[f"etc/{NAME}/gunicorn.conf.py"]
    assert f"etc/{NAME}/gunicorn.conf.py" in plan(older, installed("server: gunicorn")).puts_then


def test_an_uninstallation_removes_every_link_and_starts_nothing() -> None:
    todo = plan(installed(), Side())
    assert set(todo.removes) == paths(installed())
    assert acts(todo) == {"stops_systemd", "reloads_units", "reloads_nginx"}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_after_an_interrupted_switch_nothing_is_taken_for_granted(manager: str, workers: int) -> None:
    side = several(f"{{manager: {manager}, workers: {workers}}}")
    todo = plan(side, side, everything=True)
    assert todo.puts == side.links
    assert set(todo.copies) == set(side.files)
    restarts = "restarts_service" if manager == "systemd" else "restarts_program"
    assert {restarts, "reloads_nginx"} <= acts(todo)
    assert "reloads_service" not in acts(todo)


@pytest.mark.parametrize("workers", [1, 4])
def test_undoing_a_switch_leaves_alone_what_it_had_not_touched(workers: int) -> None:
    """Listeners refuse those who wait at them when they are opened again, and nginx cuts old connections off later."""
    before = several(f"{{workers: {workers}}}")
    todo = plan(structs.replace(before, runtime="other"), before, undoes=True)
    assert todo.puts == before.links
    assert set(todo.copies) == set(before.files)
    assert acts(todo) == {"reloads_units", "makes_directories", "returns_default_site", "restarts_service"}


def test_undoing_a_switch_starts_a_program_that_supervisor_knows_and_has_stopped() -> None:
    before = installed("manager: supervisor")
    assert "restarts_program" in acts(plan(installed(), before, undoes=True))
    assert "restarts_program" in acts(plan(structs.replace(before, runtime="other"), before, undoes=True))
    assert "restarts_program" not in acts(plan(before, before, undoes=True))


def test_undoing_a_switch_brings_back_what_it_had_touched() -> None:
    todo = plan(installed("port: 9000\nlimits: {connections: 5000}"), installed(), undoes=True)
    assert {"restarts_socket", "restarts_service", "reloads_nginx"} <= acts(todo)


def test_what_is_rendered_but_not_installed_concerns_nobody() -> None:
    """gunicorn.conf.py changes with the workers and is not read by uvicorn."""
    side, other = installed(), installed()
    path = f"etc/{NAME}/gunicorn.conf.py"
    changed = {**other.manifest, path: {**other.manifest[path], "sha256": "other"}}
    assert acts(plan(side, structs.replace(other, manifest=changed))) == set()


BY_HAND = ("/etc/nginx/sites-enabled/old", "/etc/systemd/system/old.service")


def test_what_was_set_up_by_hand_goes_with_the_first_generation_that_replaces_it() -> None:
    first = structs.replace(installed(), replaces=BY_HAND)
    assert plan(Side(), first).retires == BY_HAND
    assert plan(first, first).retires == ()
    assert plan(first, first, everything=True).retires == BY_HAND  # should any of it be there again
    assert plan(installed(), first).reloads_nginx


def test_it_comes_back_where_nothing_replaces_it_any_more() -> None:
    first = structs.replace(installed(), replaces=BY_HAND)
    assert plan(first, Side()).revives == BY_HAND
    assert plan(first, installed()).revives == BY_HAND
    assert plan(first, installed()).reloads_nginx
    assert plan(first, structs.replace(installed("port: 9000"), replaces=BY_HAND)).revives == ()


def test_a_restart_may_last_as_long_as_an_application_may_take_to_start() -> None:
    longest = load_text(
        "{domain: a.org, app: {callable: 'main:app', health: /h, start: 3600}, drain: {timeout: 600}}", "deploy.yaml"
    ).deploy
    assert start_timeout(longest) + stop_timeout(longest) < RESTART_S
