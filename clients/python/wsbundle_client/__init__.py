"""A client of the notification center."""
