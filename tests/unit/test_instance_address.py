"""The address in the ring is what was configured, else one that others can reach."""

import pytest

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.instance_address import find_address, join_host_port


@pytest.mark.parametrize(
    ("configured", "interfaces", "listens_on", "expected"),
    [
        ("10.1.2.3", ("none0",), "127.0.0.1", "10.1.2.3"),
        ("", ("none0", "lo"), "10.0.0.1", "127.0.0.1"),
        ("", (), "10.0.0.1", "10.0.0.1"),
        ("", (), "ingester-0.ingester", "ingester-0.ingester"),
    ],
)
def test_the_more_specific_source_wins(configured, interfaces, listens_on, expected):
    assert find_address(configured=configured, interfaces=interfaces, listens_on=listens_on) == expected


@pytest.mark.parametrize("everything", ["", "0.0.0.0", "::"])
def test_a_listener_on_all_addresses_is_reached_by_a_real_one(everything):
    found = find_address(configured="", interfaces=(), listens_on=everything)
    assert found.count(".") == 3
    assert found != "0.0.0.0"


def test_named_interfaces_without_an_address_are_an_error_that_says_what_to_set():
    with pytest.raises(ConfigError, match=r"none0\) has an IPv4 address; set instance_addr"):
        find_address(configured="", interfaces=("none0",), listens_on="10.0.0.1")


def test_ipv6_addresses_get_brackets():
    assert join_host_port("::1", 9095) == "[::1]:9095"
    assert join_host_port("10.0.0.1", 9095) == "10.0.0.1:9095"
