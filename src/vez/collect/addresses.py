"""Which internet addresses are public: the ones that a picture may be fetched from.

The special-purpose ranges are written out here (IANA's registries for IPv4 and IPv6, RFC 6890 and its updates) and not
taken from `ipaddress`, whose answers differ between Python versions.
"""

import ipaddress
from typing import Final

_CLOSED_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds keep their metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# All that has ever been given out for use in the open; what lies outside (loopback, fc00::/7, fe80::/10, ff00::/8) is
# closed without being named.
_OPEN_6: Final = ipaddress.IPv6Network("2000::/3")
_CLOSED_6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, among them Teredo, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)
# RFC 6052: how a network without IPv4 reaches an IPv4 host; the last 32 bits are that host's address.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether a numeric IPv4 or IPv6 address is one that anybody may reach; False for text that is no address.

    An IPv6 address that stands for an IPv4 one (IPv4-mapped, NAT64) is as public as that one; 6to4 and Teredo are not.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _CLOSED_4)
    if ip.scope_id is not None:
        return False  # an address with a zone ("%eth0") is one of this machine's own links
    carried = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None)
    if carried is not None:
        return is_public(str(carried))
    return ip in _OPEN_6 and not any(ip in network for network in _CLOSED_6)
