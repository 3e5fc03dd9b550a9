"""A room of socket.io: who says `join` is in it, and what one of them says all others hear."""

from socketio import ASGIApp, AsyncServer

server = AsyncServer(async_mode="asgi")
app = ASGIApp(server)


async def join(sid: str) -> None:
    """A client is in the room from now on."""
    await server.enter_room(sid, "g")
    await server.emit("joined", to=sid)


async def say(sid: str, text: str) -> None:
    """Pass on to everybody but the sender."""
    await server.emit("say", text, room="g", skip_sid=sid)


server.on("join", join)
server.on("say", say)
