"""IP addresses in deploy.yaml: what is one, and how to write a network. Pure.

The standard library's ipaddress is imported only where an unusual configuration asks for it.
"""

from typing import Any

LOOPBACK = ("127.0.0.1", "::1")
EVERY = ("0.0.0.0", "::")
_USUAL = {*LOOPBACK, *EVERY}
MAPPED = "::ffff:"  # Pythons differ on whether such an address is loopback


def is_address(text: str) -> bool:
    if text in _USUAL:
        return True
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def same_address(address: str, others: tuple[str, ...]) -> bool:
    """Whether an address is among these, in whatever spelling; a name is not."""
    if _USUAL.issuperset((address, *others)):
        return address in others
    from ipaddress import ip_address

    return is_address(address) and any(
        is_address(other) and ip_address(other) == ip_address(address) for other in others
    )


def network_fix(address: str) -> str:
    from ipaddress import ip_address, ip_network

    base, slash, bits = address.partition("/")
    if base.lower().startswith(MAPPED):  # nginx compares clients of IPv4 with networks of IPv4 only
        shorter = f"/{int(bits) - 96}" if bits.isdecimal() and 96 <= int(bits) < 128 else ""
        return f"write {base[len(MAPPED) :]}{shorter}" if "." in base else "write the IPv4 network"
    try:
        network = ip_network(address, strict=False)
    except ValueError:
        return "write one such as 10.0.0.0/8"
    exact = network.network_address == ip_address(base) and (not slash or bits == str(network.prefixlen))
    return "" if exact else f"write {network}"


def share(networks: list[str], public: str) -> float:
    """How much of the public addresses of a family these cover, from 0 to 1."""
    from ipaddress import collapse_addresses, ip_network

    whole = ip_network(public)
    alike: list[Any] = [each for each in map(ip_network, networks) if each.version == whole.version]
    within = [each for each in collapse_addresses(alike) if each.overlaps(whole)]
    return float(sum(min(each.num_addresses, whole.num_addresses) for each in within) / whole.num_addresses)
