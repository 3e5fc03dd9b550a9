"""What several hosts have in common and no archive holds: keys for tokens, and the engine that one of them serves."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from generator.config.addresses import same_address
from generator.config.engine import engine, password_file
from generator.config.schema import Deploy, keys_file, serves_app
from generator.deploy.answers import Answer
from generator.deploy.remote import Remote
from generator.minting import with_keys
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


class Keys:
    """The keys for tokens, so that a token is good at all hosts: those of a host that has some, or else new ones.

    A host that is alone makes its own. Keys in a place of the operator's are the operator's to bring.
    """

    def __init__(self, deploy: Deploy, remotes: Mapping[str, Remote], answers: Mapping[str, Answer]) -> None:
        self._deploy, self._remotes, self._answers = deploy, remotes, answers
        self._are_shared = len(answers) > 1 and deploy.keys is None and not serves_app(deploy)
        self._keeper = next((host for host, answer in answers.items() if answer.keys), None)
        self._lock, self._content = Lock(), b""

    def bring(self, other: Remote) -> None:
        """Let a host have them, unless it has some.

        Raises:
            RemoteError, LostError
        """
        if not self._are_shared:
            return
        path, theirs = keys_file(self._deploy), self._answers[other.destination].keys
        if not theirs:
            other.put(path, self._of_all(path), "600")  # an installation lets the service read them
            other.say(f"has got {path}{f' from {self._keeper}' if self._keeper else ', as all hosts'}")
        elif theirs != self._answers[str(self._keeper)].keys and self._deploy.auth == "token":
            other.say(f"its keys are not those of {self._keeper}: each refuses the tokens that the other has signed;")
            other.say(f"write what {path} has there into the one here, and nobody need be disconnected")

    def _of_all(self, path: str) -> bytes:
        with self._lock:  # several hosts may ask at once
            if not self._content:
                self._content = self._remotes[self._keeper].get(path) if self._keeper else _new_keys()
            return self._content


def _new_keys() -> bytes:
    with TemporaryDirectory(prefix="wsbundle-") as directory:  # nobody else can look into it
        file = Path(directory, "keys.json")
        with_keys("new-key", str(file), "HS256")
        return file.read_bytes()


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
