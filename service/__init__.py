"""The bundled notification center: an ASGI WebSocket server that routes messages between client UUIDs."""

__version__ = "0.1.0"
