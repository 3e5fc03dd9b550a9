"""An ordinary user with a checkout of her own works with sudo: the checkout stays hers, whatever her umask."""

import pytest

from tests.hosts.console import NAME, Console

CHECKOUT = "/home/ada/clone"
NOT_HERS = ("find", CHECKOUT, "!", "-user", "ada")


@pytest.fixture
def ada(empty: Console) -> Console:
    """Her host: Debian's packages are there, sudo too, and nothing of the deployment."""
    empty.run("rm", "-rf", f"/opt/{NAME}", ".venv", ".venv.lock")
    empty.run("sh", "-c", "find . -name __pycache__ -prune -exec rm -rf {} +")
    if "sudo" not in empty.run("sh", "-c", "command -v sudo", check=False):  # Ubuntu has another
        empty.run("apt-get", "-q", "-y", "install", "--no-install-recommends", "sudo", DEBIAN_FRONTEND="noninteractive")
    empty.run("useradd", "--create-home", "--shell", "/bin/bash", "ada")
    empty.write("/etc/sudoers.d/ada", "ada ALL=(ALL) NOPASSWD: ALL\n")
    empty.configure()
    empty.run("sh", "-c", f"cp -r . {CHECKOUT}; chown -R ada:ada /home/ada; chmod 700 /home/ada")
    return empty


def typed(console: Console, command: str, code: int = 0) -> str:
    """What she reads when she types this in her checkout, with a umask that lets nobody else read."""
    words = ("runuser", "-u", "ada", "--", "sh", "-c", f"umask 077; cd {CHECKOUT} && {command}")
    done = console.host.run(*words, check=False, directory="/")
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def test_sudo_make_install_leaves_the_checkout_to_its_owner(ada: Console) -> None:
    """With what an earlier version left to root in it, and with a /tmp that is small and runs nothing."""
    made = ".venv/lib generator/__pycache__ wsbundle.egg-info"
    ada.run("sh", "-c", f"cd {CHECKOUT} && mkdir -p {made} && touch .venv.lock generator/__pycache__/x.pyc")
    ada.run("sh", "-c", f"cd {CHECKOUT} && echo secret >secret && ln -s /etc/shadow .venv/lib/shadow")
    ada.run("mount", "-t", "tmpfs", "-o", "size=1M,noexec,mode=1777", "tmpfs", "/tmp")
    assert f"Generation 1 of {NAME} runs" in typed(ada, "sudo make install")
    assert ada.routes()
    assert ada.run(*NOT_HERS) == f"{CHECKOUT}/secret\n"
    assert ada.run("stat", "--format=%U", "/etc/shadow") == "root\n"
    typed(ada, "rm -f secret && make render && make check && rm -r build")
    typed(ada, "sudo make render && sudo make plan && sudo make status")
    typed(ada, "sed -i '1a # edited' generator/report.py && sudo .venv/bin/wsbundle history")
    assert ada.run(*NOT_HERS) == ""
    typed(ada, "make render && make clean")


def test_a_strict_umask_hides_nothing_from_those_who_read_it(ada: Console) -> None:
    typed(ada, "sudo make install ARGS='--set manager=supervisor --set server=gunicorn'")
    typed(ada, "sudo make install")
    assert ada.routes()
    typed(ada, "sudo .venv/bin/wsbundle rollback")
    assert ada.comes_to_route()
    typed(ada, "sudo .venv/bin/wsbundle rollback 2")
    ada.host.reboot()
    assert ada.comes_to_route()


def test_a_checkout_from_which_nothing_can_run_and_a_full_disk_are_told(ada: Console) -> None:
    ada.run("mount", "--bind", CHECKOUT, CHECKOUT)
    ada.run("mount", "-o", "remount,bind,noexec", CHECKOUT)
    for command in ("make check", "sudo make install"):
        said = typed(ada, command, code=2)
        assert f"no program can run from {CHECKOUT}, whose file system is mounted noexec" in said
    typed(ada, "sudo make check VENV=/usr/local/lib/wsbundle-venv")
    assert ada.run(*NOT_HERS) == ""
    ada.run("mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", "/mnt")
    ada.run("sh", "-c", f"cp -r {CHECKOUT} /mnt/clone && chown -R ada /mnt/clone")
    said = typed(ada, "cd /mnt/clone && make check", code=2)
    assert "wsbundle: setting up .venv failed" in said
    assert "MiB free" in said
