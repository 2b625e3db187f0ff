import pytest

from watchword_adapters.keys.addresses import is_loopback, why_refused

NOWHERE = "0.0.0.0"  # noqa: S104 - nobody listens there: it is asked for


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "2002:5db8:d70e::1"]
)
def test_public_addresses_may_be_asked(address: str) -> None:
    """A server on the Internet is asked, also through a gateway from IPv6."""
    assert why_refused(address, allow_private=False) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.0.0.5", "172.31.255.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1",
        "::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::1",
    ],
)  # fmt: skip
def test_private_addresses_only_where_they_are_allowed(address: str) -> None:
    """One's own network is asked by one's own word only, however its address is written (A32)."""
    assert "name its host in allow_private" in (why_refused(address, allow_private=False) or "")
    assert why_refused(address, allow_private=True) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "169.254.1.1", "fe80::1",
        "fe80::1%lo", NOWHERE, "::", "224.0.0.251", "ff02::1", "255.255.255.255", "240.0.0.1", "192.0.2.1",
        "198.18.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:0.0.0.0",
        "64:ff9b:1::a00:5", "2001:0:53aa:64c:0:0:f5ff:fffa", "::10.0.0.5", "fec0::1", "4000::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_no_key_server_has_are_always_refused(address: str) -> None:
    """Metadata services, neighbours, groups and what is not given out are not asked, whatever is allowed (A32)."""
    assert why_refused(address, allow_private=False) is not None
    assert why_refused(address, allow_private=True) is not None


def test_this_machine_is_known_in_any_spelling() -> None:
    """Plain HTTP stays on the machine."""
    assert all(map(is_loopback, ("127.0.0.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("10.0.0.5", "::ffff:10.0.0.5", "93.184.215.14")))
