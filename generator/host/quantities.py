"""Quantities in words that can be read at a glance."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None) -> str:
    """With a digit behind the point where it is small."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def size(value: float) -> str:
    """Bytes in the unit that fits."""
    power = 0
    while value >= 1024 and power < len(_UNITS) - 1:
        value /= 1024
        power += 1
    return f"{number(value)} {_UNITS[power]}"


def time(seconds: float | None) -> str:
    """Seconds, or milliseconds."""
    if seconds is None:
        return "-"
    return f"{number(seconds)} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def duration(seconds: float) -> str:
    """How long something has been running."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
