"""What the service logs has its priority in the journal of the host."""

import pytest

from tests.hosts.console import NAME, Console


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "standalone"])
def test_the_journal_finds_errors_and_warnings_of_the_service_and_nothing_else(installed: Console, server: str) -> None:
    def lines(priority: str) -> list[str]:
        return installed.run("journalctl", "--quiet", "-t", NAME, "-p", priority, "-o", "cat").splitlines()

    installed.install(server=server, workers=2, log={"level": "info"})
    assert lines("warning") == []
    assert lines("info")
    assert all(line.startswith("INFO ") for line in lines("info"))
    installed.run("sh", "-c", f"kill -9 $(pgrep -P $(systemctl show --value -p MainPID {NAME}) | head -n 1)")
    installed.run("sh", "-c", f"until journalctl -q -t {NAME} -p err -o cat | grep -q .; do sleep 0.1; done")
    assert all(line.startswith("ERROR ") for line in lines("warning"))
    installed.run("sed", "-i", "s/^LOG_LEVEL=.*/LOG_LEVEL='loud'/", f"/etc/{NAME}/.env")
    installed.host.run("systemctl", "restart", NAME, check=False)
    assert "LOG_LEVEL: 'loud' is unknown; use one of critical, debug, error, info, warning" in lines("err")
