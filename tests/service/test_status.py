"""What the service manager shows of several workers is what they have together."""

from service.core.status import application_line, status_line, together
from tests.service.centers import World


def test_a_worker_tells_of_itself() -> None:
    world = World()
    alice, bob = world.v0(), world.v0()
    alice.register("alice")
    bob.say(recipient_uuid="alice", message=1)
    bob.say(recipient_uuid="nobody", message=1)
    assert world.center.status() == status_line(2, 1, 1) == "2 connections; messages: 1 routed, 1 dropped"


def test_workers_are_added_up_but_for_those_that_start_or_stop() -> None:
    lines = [status_line(2, 30, 1), "stopping", status_line(1, 4, 0), "starting"]
    assert together(lines) == status_line(3, 34, 1)


def test_without_any_that_serves_there_is_nothing() -> None:
    failing = status_line(1, 1, 1, is_mailbox_failing=True)
    assert failing == "1 connections; messages: 1 routed, 1 dropped; mailboxes cannot be written"
    assert together([status_line(2, 30, 1), failing]) == status_line(3, 31, 2, is_mailbox_failing=True)
    assert together(["starting"]) == status_line(0, 0, 0)


def test_workers_of_an_application_are_added_up_as_well() -> None:
    lines = [application_line(3, 2, 1), "stopping", application_line(4, 0, 4)]
    assert together(lines, of_application=True) == "7 connections, 2 of them WebSockets; 5 requests running"
    assert together(["starting"], of_application=True) == application_line(0, 0, 0)
