"""Twenty free images a day and visitor, and a cap per network, counted together with the hold."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from starlette.requests import Request

from gateway.auth.identity import NetworkKeys
from gateway.auth.networks import Origins, prefixes, quotas
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of, generation_request


async def statuses(client: httpx.AsyncClient, count: int, **headers: str) -> list[int]:
    """What so many requests, one after the other, are answered."""
    return [
        (await client.post("/v1/generations", json=generation_request(f"{n}"), headers=headers)).status_code
        for n in range(count)
    ]


async def test_a_visitor_has_twenty_images_a_day(gateway: Gateway) -> None:
    client = await gateway.visitor()
    assert await statuses(client, 21) == [202] * 20 + [402]
    assert await credits_of(client) == {"posted": 20, "held": 20, "available": 0, "debt": 0}


async def test_a_network_has_its_own_cap_and_paid_credits_pass_it(open_gateway: Open) -> None:
    async with open_gateway(network_allowance_address=5) as gateway:
        first, second = await gateway.visitor(), await gateway.visitor()
        assert await statuses(first, 3) == [202] * 3
        assert await statuses(second, 3) == [202, 202, 402]
        answer = await second.post("/v1/generations", json=generation_request())
        document = answer.json()
        assert document["code"] == "allowance_shared_out"
        assert document["needed_credits"] == 1
        assert document["topup_url"]
        assert document["balance"]["available"] == 18
        await gateway.top_up(second, 100)
        assert await statuses(second, 2) == [202] * 2
        lots = {lot["source"]: lot for lot in (await second.get("/v1/account")).json()["lots"]}
        assert (lots["payment"]["held"], lots["allowance"]["held"]) == (2, 2)


async def test_the_cap_of_a_network_holds_against_requests_at_the_same_time(open_gateway: Open) -> None:
    async with open_gateway(network_allowance_address=5) as gateway:
        visitors = [await gateway.visitor() for _ in range(4)]
        rounds = await asyncio.gather(*(statuses(visitor, 3) for visitor in visitors))
    assert sorted(status for found in rounds for status in found) == [202] * 5 + [402] * 7


async def test_a_forwarding_header_counts_only_from_a_configured_proxy(open_gateway: Open) -> None:
    async with open_gateway(network_allowance_address=1) as gateway:
        client = await gateway.visitor()
        found = [await statuses(client, 1, **{"X-Forwarded-For": f"203.0.113.{n}"}) for n in range(3)]
        assert found == [[202], [402], [402]]
    async with open_gateway(network_allowance_address=1, trusted_proxies="127.0.0.0/8, ::1") as gateway:
        client = await gateway.visitor()
        found = [await statuses(client, 1, **{"X-Forwarded-For": f"203.0.113.{n}"}) for n in (1, 2, 1)]
        assert found == [[202], [202], [402]]
        spoofed = await statuses(client, 1, **{"X-Forwarded-For": "198.51.100.7, 203.0.113.1"})
        assert spoofed == [402], "what stands before the last address is hearsay"


async def test_the_neighbours_of_an_ipv6_address_share_its_allowance(open_gateway: Open) -> None:
    async with open_gateway(
        network_allowance_address=2, network_allowance_site=3, trusted_proxies="127.0.0.1"
    ) as gateway:
        client = await gateway.visitor()
        seen = []
        for address in (
            "2001:db8:1:1::1",
            "2001:db8:1:1::2",
            "2001:db8:1:1:ffff::3",
            "2001:db8:1:2::1",
            "2001:db8:1:3::1",
            "2001:db8:2::1",
        ):
            seen += await statuses(client, 1, **{"X-Forwarded-For": address})
    assert seen == [202, 202, 402, 202, 402, 202]


def request_from(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 1) if peer else None})


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("198.51.100.1", (), "198.51.100.1"),
        ("198.51.100.1", ("203.0.113.9",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("6.6.6.6, 203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("6.6.6.6", "203.0.113.9"), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("6.6.6.6, rubbish",), "0.0.0.0"),
        ("10.0.0.1", ("6.6.6.6, 203.0.113.9:4711",), "203.0.113.9"),
        ("10.0.0.1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("10.0.0.1", ("[2001:db8::1]",), "2001:db8::1"),
        ("10.0.0.1", ("203.0.113.9, 10.0.0.2:80",), "203.0.113.9"),
        ("10.0.0.1", ("6.6.6.6, [203.0.113.9",), "0.0.0.0"),
        ("10.0.0.1", ("203.0.113.9:4711:1",), "0.0.0.0"),
        ("10.0.0.1", ("203.0.113.9\x00",), "0.0.0.0"),
        ("::ffff:10.0.0.1", ("::ffff:203.0.113.9",), "203.0.113.9"),
        ("::ffff:198.51.100.1", ("203.0.113.9",), "198.51.100.1"),
        ("fe80::1%eth0", (), "fe80::1"),
        ("", (), "0.0.0.0"),
    ],
)
def test_the_address_of_a_request_is_what_cannot_be_invented(
    peer: str, forwarded: tuple[str, ...], found: str
) -> None:
    assert str(Origins(["10.0.0.0/8"]).address(request_from(peer, *forwarded))) == found


def test_an_ipv4_address_counts_for_itself_and_an_ipv6_address_for_its_networks() -> None:
    assert prefixes(ipaddress.ip_address("203.0.113.9")) == ("203.0.113.9/32",)
    found = prefixes(ipaddress.ip_address("2001:db8:1:2:3:4:5:6"))
    assert found == ("2001:db8:1:2::/64", "2001:db8:1::/48")


def test_a_quota_ends_with_the_utc_day_and_names_no_address() -> None:
    keys = NetworkKeys(b"x" * 32)
    now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    narrow, wide = quotas(ipaddress.ip_address("2001:db8::1"), keys, now, narrow=60, wide=240)
    assert (narrow.cap, wide.cap) == (60, 240)
    assert narrow.expires_at == datetime(2026, 11, 23, tzinfo=UTC)
    assert "2001" not in narrow.key
    (tomorrow,) = quotas(
        ipaddress.ip_address("203.0.113.9"), keys, now + timedelta(seconds=1), narrow=60, wide=240
    )
    (today,) = quotas(ipaddress.ip_address("203.0.113.9"), keys, now, narrow=60, wide=240)
    assert today.key != tomorrow.key
    assert NetworkKeys(b"y" * 32).key("203.0.113.9/32", now) != keys.key("203.0.113.9/32", now)
