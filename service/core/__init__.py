"""The state and the decisions of the notification center. Pure: no loop, no socket, no clock of its own."""
