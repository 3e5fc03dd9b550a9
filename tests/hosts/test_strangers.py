"""Directories and users that carry a deployment's name and are somebody else's: never taken over, never removed."""

from typing import Any

from tests.hosts.console import NAME, Console

DIRECTORIES = ("/opt/{0}", "/etc/{0}", "/var/lib/{0}", "/run/{0}", "/var/log/{0}", "/var/lib/{0}-acme")
SUPERVISOR: dict[str, Any] = {"manager": "supervisor", "server": "gunicorn"}


def plant(console: Console, name: str = NAME) -> None:
    """Give every directory that would carry a deployment's name a file of somebody else's."""
    for directory in DIRECTORIES:
        path = directory.format(name)
        console.run("sh", "-c", f"mkdir -p {path}/theirs && echo {path} | tee {path}/foreign >{path}/theirs/foreign")
    console.run("chown", "games:games", f"/opt/{name}/foreign")


def planted(console: Console, name: str = NAME) -> list[str]:
    """What was planted, with owner, mode and digest."""
    files = " ".join(f"{path.format(name)}/foreign {path.format(name)}/theirs/foreign" for path in DIRECTORIES)
    return console.run("sh", "-c", f"stat -c '%n %U:%G %a %Y' {files}; sha256sum {files}").splitlines()


def test_what_was_never_installed_is_neither_taken_over_nor_removed(empty: Console) -> None:
    empty.run("rm", "-r", f"/opt/{NAME}")
    for name in ("network", "notify", NAME):
        plant(empty, name)
    for name in ("network", "notify", "lock", NAME):
        empty.configure(name=name)
        before = empty.listing()
        for words in (("uninstall",), ("uninstall", "--purge")):
            assert f"{name} is not installed" in empty.wsbundle(*words)
        assert "is not installed" in empty.wsbundle("rollback", code=1) or name == "lock"
        said = empty.install(name=name, code=1)
        there = [path.format(name) for path in DIRECTORIES] if name != "lock" else ["/run/lock"]
        assert all(f"{path} is there, and is not ours; choose another name" in said for path in there)
        assert empty.listing() == before


def test_what_others_put_into_our_directories_outlives_us(installed: Console) -> None:
    plant(installed)
    before = planted(installed)
    installed.install(port=9000)
    assert installed.routes()
    installed.wsbundle("rollback")
    assert installed.routes()
    assert "/var/log/queue-websocket is there, and is not ours" in installed.install(code=1, **SUPERVISOR)
    assert planted(installed) == before
    installed.configure()
    said = installed.wsbundle("uninstall")
    assert f"/opt/{NAME} stays: foreign, theirs is not ours." in said
    assert planted(installed) == before
    said = installed.wsbundle("uninstall", "--purge")
    assert f"/etc/{NAME} stays: foreign, theirs is not ours." in said
    assert planted(installed) == before
    assert NAME not in installed.run("getent", "passwd")
    assert installed.run("sh", "-c", f"ls -A /etc/{NAME} /var/lib/wsbundle.d 2>/dev/null", check=False).split() == [
        f"/etc/{NAME}:",
        "foreign",
        "theirs",
    ]


def test_the_same_under_supervisor_with_a_log_and_a_socket(empty: Console) -> None:
    empty.install(socket=f"/run/{NAME}/ws.sock", **SUPERVISOR)
    plant(empty)
    before = planted(empty)
    empty.wsbundle("uninstall", "--purge")
    assert planted(empty) == before
    assert empty.run("ls", f"/run/{NAME}", f"/var/log/{NAME}").split().count("foreign") == 2
    assert empty.run("find", f"/run/{NAME}", f"/var/log/{NAME}", "-name", "*queue*.log*", "-o", "-type", "s") == ""


def test_what_an_earlier_release_installed_is_known_without_a_record(installed: Console) -> None:
    assert installed.run("ls", "/var/lib/wsbundle.d") == f"{NAME}.json\n"
    installed.run("rm", "-r", "/var/lib/wsbundle.d")
    installed.install(port=9000)
    installed.run("rm", "-r", "/var/lib/wsbundle.d")
    installed.wsbundle("uninstall")
    installed.run("rm", "-r", "/var/lib/wsbundle.d")
    installed.install()
    assert installed.routes()
    installed.wsbundle("uninstall")
    installed.run("rm", "-r", "/var/lib/wsbundle.d")
    installed.wsbundle("uninstall", "--purge")
    assert NAME not in installed.run("getent", "passwd")
    assert installed.run("find", "/etc", "/opt", "/run", "/var/lib", "-name", f"{NAME}*") == ""


def test_a_user_who_is_a_person_runs_no_service(empty: Console) -> None:
    empty.run("useradd", "--create-home", "--shell", "/bin/bash", "deploybot")
    uid = empty.run("id", "-u", "deploybot").strip()
    said = empty.install(user="deploybot", code=1)
    assert f"the user deploybot is a person (uid {uid}, /bin/bash)" in said
    assert "the user deploybot is a person" in empty.install(name="deploybot", code=1)
    empty.run("groupadd", "crew")
    assert "there is a group crew, and no user of that name" in empty.install(user="crew", code=1)


def test_a_user_of_two_deployments_leaves_with_neither_while_the_other_runs(installed: Console) -> None:
    second: dict[str, Any] = {"name": "second", "domain": "second.example.com", "port": 9100, "user": NAME}
    installed.install(**second)
    installed.configure()
    assert f"The user {NAME} stays: second runs as it." in installed.wsbundle("uninstall", "--purge")
    installed.run("systemctl", "restart", "second")
    assert installed.routes("second.example.com")


def test_keys_that_another_deployment_reads_are_not_purged(installed: Console) -> None:
    keys = f"/etc/{NAME}/keys.json"
    second: dict[str, Any] = {"name": "second", "domain": "second.example.com", "port": 9100, "user": NAME}
    second |= {"auth": "token", "keys": keys}
    installed.install(**second)
    installed.configure()
    assert f"second reads {keys} as well" in installed.wsbundle("uninstall", "--purge", code=1)
    assert installed.routes()
    installed.run("rm", keys)
    installed.configure(**second)
    for words in ("status", "plan", "install"):
        assert f"{keys} is gone, and without that the service does not start" in installed.wsbundle(words, code=1)


def test_a_deployment_that_gets_another_name_is_told_how_the_old_one_ends(installed: Console) -> None:
    installed.configure(name="renamed")
    assert f"wsbundle uninstall --set name={NAME}`" in installed.wsbundle("plan", code=1)
    assert f"Others are: {NAME}; to uninstall one: " in installed.wsbundle("uninstall")
    assert installed.routes()
    installed.wsbundle("uninstall", "--set", f"name={NAME}")
    installed.wsbundle("install")
    assert installed.routes()
