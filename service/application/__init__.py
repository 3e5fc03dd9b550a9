"""Your own ASGI application, in place of the notification center."""
