import ipaddress
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vez.collect.addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",  # IPv4-compatible
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001::1",
        "2001:0:53aa:64c:0:0:f5ff:fffe",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%eth0",
        "ff02::1",
        "localhost",
        "127.1",
        "0177.0.0.1",
        "2130706433",
        "",
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2003::1"],
)
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@given(number=st.integers(0, 2**32 - 1))
@example(number=int(ipaddress.IPv4Address("192.0.0.9")))
def test_an_open_ipv4_address_is_one_that_python_calls_global(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    assert not is_public(str(address)) or (address.is_global and not address.is_multicast)


@given(number=st.one_of(st.integers(0, 2**128 - 1), st.integers(0x2000 << 112, (0x4000 << 112) - 1)))
def test_an_open_ipv6_address_is_one_that_python_calls_global(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    open_here = is_public(str(address)) and address.ipv4_mapped is None
    assert not open_here or sys.version_info < (3, 11) or address.is_global
