"""A test that is skipped says what is missing, and how to get it; at the end all of it is one command."""

from tests.programs import missing, wanted


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    assert missing("ssh") == "ssh is not installed: apt-get install -y openssh-client"
    assert missing("nginx") == "nginx is not installed: apt-get install -y nginx"


def test_all_that_was_missing_is_one_command() -> None:
    reasons = [missing("nginx"), "only root can become somebody else", f"('x.py', 3, 'Skipped: {missing('ssh')}')"]
    assert wanted([*reasons, missing("nginx")]) == (
        "3 tests were skipped for want of programs; for those as well: apt-get install -y nginx openssh-client"
    )


def test_nothing_is_said_where_nothing_was_missing() -> None:
    assert wanted(["only root can become somebody else"]) is None
