"""A shell of the service whose sessions send everything back, as the fuzzing client of Autobahn|Testsuite wants it.

    python -m tests.autobahn.autobahn_echo fast
    python -m tests.autobahn.autobahn_echo standalone

The sessions stand where the service's own do; the shells around them are untouched.
"""

import sys
from collections.abc import Callable

from websockets.frames import Frame, Opcode

import service.__main__
import service.core.admission
import service.server
from service.core.session import SessionV0
from service.fast.fast import WebSocket


class Binary(bytes):
    """Leaves as a binary message. The service itself never sends one."""


class Echo(SessionV0):
    """Sends every message back as what it was."""

    __slots__ = ()

    def start(self) -> None:
        pass

    def receive(self, text: bytes) -> float:
        self.client.send(text)
        return 0.0

    def receive_binary(self, data: bytes) -> float:
        if isinstance(self.client, WebSocket):
            self.client.flush()
            self.client.transport.write(Frame(Opcode.BINARY, data).serialize(mask=False))
        else:
            self.client.send(Binary(data))
        return 0.0


class Link(service.server.LibraryLink):
    """The library's WebSocket, which can send binary messages as well."""

    async def send(self, text: bytes) -> None:
        if isinstance(text, Binary):
            await self._connection.send(text)
        else:
            await super().send(text)


SHELLS: dict[str, Callable[[], None]] = {"fast": service.__main__.main, "standalone": service.server.main}


def main(shell: str) -> None:
    vars(service.core.admission)["SessionV0"] = Echo
    vars(service.server)["LibraryLink"] = Link
    sys.argv[1:] = []
    SHELLS[shell]()


if __name__ == "__main__":
    main(sys.argv[1])
