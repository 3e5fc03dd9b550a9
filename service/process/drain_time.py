"""Over how long clients are sent away when the service stops. Pure."""


def duration(clients: int, window_s: float, rate: float) -> float:
    """How long it takes to disconnect this many clients, in seconds: a few are gone at once, many take the window."""
    return min(window_s, clients / rate)
