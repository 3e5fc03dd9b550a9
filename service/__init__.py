"""The bundled notification center: an ASGI WebSocket server that routes messages between client UUIDs."""
