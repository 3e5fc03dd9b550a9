"""`engine.serve` for several hosts: the one that has the address of `engine.url` serves, the others join it."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

from generator.config.addresses import same_address
from generator.config.engine import engine, password_file
from generator.config.schema import Deploy
from generator.deploy.answers import Answer
from generator.deploy.remote import Remote
from generator.paths import Paths
from generator.report import UsageError


def check_names(deploy: Deploy, hosts: Sequence[str]) -> None:
    """Raises: UsageError: on one engine all of these would have one name."""
    there = engine(deploy)
    if len(hosts) > 1 and deploy.engine.host is not None and there is not None and not there.is_local:
        raise UsageError(
            f"engine.host: no two hosts may have the same, and all of these would be {deploy.engine.host!r}; leave it "
            "out, or deploy to one after another, each with its own: --set engine.host=NAME"
        )


def joins(deploy: Deploy, answer: Answer) -> bool:
    """Whether a host is to join the engine that deploy.yaml lets another one serve."""
    there = engine(deploy)
    if not deploy.engine.serve or there is None or there.is_local:
        return False
    return not same_address(there.host, tuple(answer.addresses.split()))


def server_of(deploy: Deploy, answers: Mapping[str, Answer]) -> str | None:
    """The host that others join; None where none is named."""
    if not any(joins(deploy, answer) for answer in answers.values()):
        return None
    return next((host for host, answer in answers.items() if not joins(deploy, answer)), None)


def joining(options: Namespace, deploy: Deploy) -> Namespace:
    """The options of the command for a host that joins: it knows the password, and has no certificate of its own."""
    path = password_file(deploy) or f"/{Paths(deploy.name).engine_password}"
    changes = ["engine.serve=false", "engine.cert=null", "engine.key=null", f"engine.password_file={path}"]
    return Namespace(**{**vars(options), "set": [*options.set, *changes]})


def carry(deploy: Deploy, server: Remote, other: Remote) -> None:
    """Bring a host what it needs to join: the password, and the certificate by which it knows the engine.

    Raises:
        RemoteError, LostError
    """
    # An installation hands the password over to the service's user; the certificate is for everybody to read.
    for path, mode in ((password_file(deploy), "600"), (deploy.engine.ca, "644")):
        if path is not None and other.put(path, server.get(path), mode):
            other.say(f"has got {path} from {server.destination}")
