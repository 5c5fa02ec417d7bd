"""The address under which other processes of the cluster reach this one, for the ring.

    configured address ─► first configured interface that has one ─► the address listened on, if it is one
    ─► the address of the machine's default route ─► the loopback

Source: Mimir's rules for `instance_addr` and `instance_interface_names`; what is not configured is found without a list
of interface names that depends on the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Sequence

from mimir_ingest.config.errors import ConfigError

_SIOCGIFADDR = 0x8915
_ELSEWHERE = ("192.0.2.1", 9)  # why: a documentation address; connecting a datagram socket sends nothing
_LOOPBACK = "127.0.0.1"


def find_address(*, configured: str, interfaces: Sequence[str], listens_on: str) -> str:
    """Return the host part of an instance's address; an IPv6 address without brackets.

    Parameters
    ----------
    configured : `instance_addr`; empty to find one
    interfaces : `instance_interface_names`, the first that has an IPv4 address is taken
    listens_on : the address of the internal listener; empty for all addresses

    Raises ConfigError when interfaces are named and none has an address.
    """
    if configured:
        return configured
    for name in interfaces:
        if (address := _address_of(name)) is not None:
            return address
    if interfaces:
        raise ConfigError(
            f"no interface of instance_interface_names ({', '.join(interfaces)}) has an IPv4 address; set instance_addr"
        )
    if listens_on and not _is_wildcard(listens_on):
        return listens_on
    return _route_address() or _LOOPBACK


def join_host_port(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _address_of(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        return socket.inet_ntoa(answer[20:24])
    return None


def _route_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(_ELSEWHERE)
        return probe.getsockname()[0]
    return None
