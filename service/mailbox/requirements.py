"""What an engine must be, and let its user do, so that it keeps mailboxes; and how a worker finds out."""

from typing import TYPE_CHECKING, NamedTuple

from service.engine.faults import EngineError, EngineUnreachableError
from service.mailbox import script
from service.mailbox.rights import WAITS, faults_of, is_refusal, rights, version_of
from service.settings import Engine, Mailbox

if TYPE_CHECKING:
    from service.engine.connection import Stream

# For how long the engine may take until what it has stored is on its disk, and on another server.
_DISK_MS = 2000
_REPLICA_MS = 500


class Server(NamedTuple):
    """The engine that was reached: which run of it, and the commands that wait until what it stored is safe."""

    run: str
    waits: list[list[bytes]]

    @classmethod
    async def at(cls, stream: "Stream", engine: Engine, settings: Mailbox) -> "Server":
        """Load the script there, and see that the engine keeps what it is given.

        Raises:
            EngineError, EngineUnreachableError
        """
        asked = [[b"INFO"], *([b"SCRIPT", b"LOAD", text] for text in (script.STORING, script.WORKING))]
        info, *loaded = await stream.ask(asked)
        for said in (info, *loaded):
            if isinstance(said, Exception):
                raise explained(said, stream.where, engine)
        facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        if faults := [f"{what}; {fix}" for what, fix in faults_of(facts)]:
            raise EngineError(f"the engine at {stream.where} is of no use for mailboxes: {', and '.join(faults)}")
        waits = []
        if settings.sync == "turn" and version_of(facts) >= WAITS:
            waits.append([b"WAITAOF", b"1", b"0", b"%d" % _DISK_MS])
        elif settings.sync == "turn":
            await _see_that_each_write_is_synced(stream, engine)
        if engine.sentinels:
            waits.append([b"WAIT", b"1", b"%d" % _REPLICA_MS])
        return cls(facts["run_id"] + facts["master_replid"], waits)


async def _see_that_each_write_is_synced(stream: "Stream", engine: Engine) -> None:
    (said,) = await stream.ask([[b"CONFIG", b"GET", b"appendfsync"]])
    if isinstance(said, Exception):
        raise explained(said, stream.where, engine, is_old=True)
    if b"always" not in (said.values() if isinstance(said, dict) else said):
        raise EngineError(
            f"the engine at {stream.where} cannot be asked whether something is on its disk; set appendfsync always "
            "there, or take version 7.2 or newer, or set mailbox.sync: second"
        )


def explained(error: Exception, where: str, engine: Engine, is_old: bool = False) -> Exception:
    """What the engine says, as an error of ours."""
    said = str(error)
    if is_refusal(said):
        return EngineError(
            f"the engine at {where} lets user {engine.user} do too little for mailboxes: {said}; let it also "
            f"{' '.join(rights(engine.name or 'center', is_old))}"
        )
    if said.startswith("NEWER"):
        return EngineError(f"the mailboxes in the engine at {where} are of a newer release; install that one again")
    return EngineUnreachableError(f"the engine at {where}: {said}")
