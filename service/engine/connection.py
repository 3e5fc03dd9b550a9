"""The connection to the engine. redis-py opens it, with TLS, user, password and Sentinel; then the stream is ours.

What is published is written without waiting for its reply, one write for each turn of the loop: waiting costs twice as
much. One connection publishes and subscribes, as RESP3 allows: neither can be back before the other.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from service.engine.faults import EngineError, EngineUnreachableError
from service.settings import Engine

# How long each step of connecting may take.
PATIENCE_S = 2.0
_DEFAULT_PORT = 6379
# So much is acted on before it is the turn of others.
_CHUNK_BYTES = 32 * 1024
_REPLY_BYTES = 256 * 1024
# How long the engine may take for the next part of a reply.
ANSWER_S = 5.0
# How it says that it does not accept us; the library makes errors of several kinds of these.
_REFUSALS = ("WRONGPASS", "NOAUTH", "NOPERM", "invalid username-password", "HELLO must be called", "this user has no")
# While it does something else: it reads its data, or a script runs.
_PASSING = ("BUSY", "LOADING", "MASTERDOWN")


def command(*words: bytes) -> bytes:
    """A command as it is written."""
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


class Stream:
    """An open connection to the engine `where`."""

    def __init__(self, connection: AbstractConnection, where: str) -> None:
        assert connection._reader is not None
        assert connection._writer is not None
        self.where = where
        self._connection = connection
        self._reader, self._writer = connection._reader, connection._writer
        self._parser = hiredis.Reader()

    def write(self, data: bytes) -> None:
        """Send commands; never waits."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def hear(self, act: Callable[[bytes], None]) -> None:
        """Act on everything that is published on the channels to which we have subscribed, until the connection ends.

        Raises:
            EngineError: we may not publish or subscribe.
            EngineUnreachableError: it does neither now, or the connection was lost.
        """
        parser = self._parser
        while data := await self._read():
            parser.feed(data)
            while (item := parser.gets()) is not False:
                if isinstance(item, list):
                    if item[0] == b"message":
                        act(item[2])
                elif isinstance(item, Exception):
                    raise self._explained(str(item))
            if len(data) == _CHUNK_BYTES:
                await asyncio.sleep(0)

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK_BYTES)
        except OSError as error:
            raise EngineUnreachableError(f"the connection to the engine at {self.where} was lost: {error}") from None

    def _explained(self, said: str) -> Exception:
        if said.startswith(_PASSING):
            return EngineUnreachableError(f"the engine at {self.where} passes nothing on now: {said}")
        return EngineError(
            f"the engine at {self.where} refuses the service: {said}; let its user publish and subscribe on the "
            "channels nc:*"
        )

    async def ask(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """Send commands, and wait for the reply to each; one that is refused is answered by an exception among them.

        Raises:
            EngineUnreachableError: the connection was lost, or no reply comes in time.
        """
        self.write(b"".join(command(*words) for words in commands))
        said: list[Any] = []
        while len(said) < len(commands):
            try:
                data = await asyncio.wait_for(self._reader.read(_REPLY_BYTES), ANSWER_S)
            except (OSError, asyncio.TimeoutError):
                data = b""
            if not data:
                raise EngineUnreachableError(f"the engine at {self.where} does not answer")
            self._parser.feed(data)
            while (item := self._parser.gets()) is not False:
                said.append(item)
        return said

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()
        self._forget()

    async def close(self) -> None:
        """End the connection when all that was written has left, or soon."""
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), PATIENCE_S)
        self._forget()

    def _forget(self) -> None:
        # The library warns of a connection that it did not close itself.
        self._connection._reader = self._connection._writer = None


class Dialer:
    """Finds the engine that the settings name, and connects to it."""

    def __init__(self, settings: Engine) -> None:
        assert settings.url is not None
        self._settings = settings
        self._url = urlsplit(settings.url)
        self._has_tls = self._url.scheme in ("valkeys", "rediss")

    @property
    def where(self) -> str:
        """What the engine is called in the log."""
        settings = self._settings
        return f"{settings.master} of the Sentinels" if settings.sentinels else str(settings.url)

    async def find(self) -> tuple[str, int]:
        """Host and port of the engine; its path and 0 for a Unix socket.

        Raises:
            EngineUnreachableError: no Sentinel knows it.
        """
        if not self._settings.sentinels:
            if self._url.scheme == "unix":
                return self._url.path, 0
            return str(self._url.hostname), self._url.port or _DEFAULT_PORT
        said, credentials = "", self._credentials()
        for given in ({}, credentials) if credentials else ({},):  # they may ask for a password themselves
            try:
                return await self._ask_sentinels(given)
            except MasterNotFoundError:
                continue
            except RedisError as error:  # it is no Sentinel, or does not let us ask
                said = f": {error}"
        raise EngineUnreachableError(f"no Sentinel knows the master {self._settings.master} now{said}")

    async def _ask_sentinels(self, credentials: dict[str, Any]) -> tuple[str, int]:
        addresses = [
            (host.strip("[]"), int(port))
            for host, _, port in (each.rpartition(":") for each in self._settings.sentinels)
        ]
        tls = {"ssl": True, **self._tls()} if self._has_tls else {}
        sentinel: Any = Sentinel(addresses, sentinel_kwargs={**_ONCE, **tls, **credentials})  # type: ignore[no-untyped-call]
        try:
            host, port = await sentinel.discover_master(self._settings.master)
            return str(host), int(port)
        finally:
            for client in sentinel.sentinels:
                with contextlib.suppress(OSError, RedisError):
                    await client.aclose()

    async def connect(self) -> tuple[Stream, tuple[str, int]]:
        """A connection, and to where.

        Raises:
            EngineError: it refuses us.
            EngineUnreachableError: it cannot be reached.
        """
        at = await self.find()
        where = f"{at[0]}:{at[1]}" if at[1] else at[0]
        connection = self._connection(at)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            if self._settings.sentinels:
                await self._check_role(connection, where)
        except (OSError, RedisError, asyncio.TimeoutError) as error:
            await connection.disconnect()
            raise self._explained(error, where) from None
        return Stream(connection, where), at

    async def _check_role(self, connection: AbstractConnection, where: str) -> None:
        await connection.send_command("INFO", "replication")
        if b"role:master" not in bytes(await connection.read_response()):
            raise EngineUnreachableError(f"{where} is not the master any more, and the Sentinels do not know it yet")

    def _explained(self, error: Exception, where: str) -> Exception:
        cause = error.__cause__ or error.__context__
        if isinstance(error, EngineUnreachableError):
            return error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return EngineError(
                f"the certificate of the engine at {where} is not accepted: {cause.verify_message}; check engine.ca, "
                "and that the certificate names this address"
            )
        said = str(error).rstrip(".")
        if isinstance(error, AuthenticationError) or said.lower().startswith(tuple(map(str.lower, _REFUSALS))):
            return EngineError(
                f"the engine at {where} does not accept user {self._settings.user}: {said}; check engine.user and the "
                f"password in {self._settings.password_file or 'engine.password_file, which is not set'}"
            )
        tls = "; does this port speak TLS?" if self._has_tls and not isinstance(cause, ConnectionRefusedError) else ""
        return EngineUnreachableError(f"the engine at {where} cannot be reached: {said}{tls}")

    def _connection(self, at: tuple[str, int]) -> AbstractConnection:
        options: dict[str, Any] = {**_ONCE, **self._credentials(), "protocol": 3}
        if self._url.scheme == "unix":
            return UnixDomainSocketConnection(path=at[0], **options)
        if self._has_tls:
            return SSLConnection(host=at[0], port=at[1], **options, **self._tls())
        return Connection(host=at[0], port=at[1], **options)

    def _credentials(self) -> dict[str, Any]:
        path = self._settings.password_file
        if path is None:
            return {}
        try:
            password = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise EngineError(f"{path} cannot be read: {error.strerror}; it has the password of the engine") from None
        except UnicodeDecodeError:
            raise EngineError(f"{path} is not text; it has the password of the engine, on one line") from None
        if not password:
            raise EngineError(f"{path} is empty; write the password of the engine into it")
        return {"username": self._settings.user, "password": password}

    def _tls(self) -> dict[str, Any]:
        settings = self._settings
        for path in filter(None, (settings.ca, settings.cert, settings.key)):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise EngineError(f"{path} cannot be read: {error.strerror}") from None
        return {"ssl_ca_certs": settings.ca, "ssl_certfile": settings.cert, "ssl_keyfile": settings.key}


# A library that tries again by itself publishes twice. A check of health fails on a full disk, where all else works.
_ONCE: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),
    "socket_connect_timeout": PATIENCE_S,
    "socket_timeout": PATIENCE_S,
    "health_check_interval": 0,
    "driver_info": None,
}
