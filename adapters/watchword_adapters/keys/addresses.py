"""Decides which addresses a key server may have, so that no URL, redirect or name server leads into our own network.

An IPv4 address inside an IPv6 address counts, whether it is mapped or used by a NAT64 or 6to4 gateway. The addresses at
which clouds give credentials to any client are refused even if private addresses are allowed.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

_Address: TypeAlias = IPv4Address | IPv6Address

_NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052
_GLOBAL: Final = ip_network("2000::/3")  # all assigned global unicast addresses (RFC 4291 section 2.4)
_PRIVATE: Final = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7",
    )
)  # fmt: skip
"""The networks that ``allow_private`` allows: this machine, and private ones."""

_IF_MEANT: Final = 'if that is intended, name its host in allow_private = ["<host>"] (in a command: --allow-private)'

_METADATA: Final = frozenset(
    map(ip_address, ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Metadata services of AWS and others, Azure, Alibaba, Oracle, and of AWS by IPv6; some lie in public ranges."""


def why_refused(text: str, *, allow_private: bool) -> str | None:
    """Return why an address is refused for a key server; None if it is not."""
    address = _reached(ip_address(text))
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return f"{text} cannot be the address of a key server"
    if any(address in network for network in _PRIVATE):
        return None if allow_private else f"{text} is a private address: {_IF_MEANT}"
    if not address.is_global or (isinstance(address, IPv6Address) and address not in _GLOBAL):
        return f"{text} cannot be the address of a key server"
    return None


def is_loopback(text: str) -> bool:
    """Return True for an address of this machine."""
    return _reached(ip_address(text)).is_loopback


def _reached(address: _Address) -> _Address:
    """Return the address that is reached in the end."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address
