"""What the notification center knows and decides. Pure: no loop, no socket, no clock of its own."""
