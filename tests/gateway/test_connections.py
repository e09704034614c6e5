"""Who makes room when there are as many connections or streams as may be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from gateway.auth.networks import Origins
from gateway.bounds.bodies import HeldBodies
from gateway.bounds.connections import ConnectionLimits, Connections, raise_descriptor_limit
from gateway.bounds.streams import OpenStreams
from gateway.http.problems import Problem

LIMITS = ConnectionLimits(
    connections=6,
    connections_address=3,
    connections_site=4,
    header_bytes=1,
    header_fields=1,
    header_seconds=1,
    idle_seconds=1,
    idle_seconds_proxy=1,
    unread_seconds=1,
    refusals_per_second=10,
    requests_at_once_address=4,
)


@dataclass(eq=False)
class Socket:
    unread: bool = False
    put_off: bool = False
    evicted: bool = False

    def has_unread(self) -> bool:
        return self.unread

    def is_put_off(self) -> bool:
        return self.put_off

    def evict(self) -> None:
        self.evicted = True


def connections(**changes: int) -> Connections:
    return Connections(replace(LIMITS, **changes), Origins(["10.0.0.1"]))


def admitted(all_: Connections, *hosts: str) -> list[Socket]:
    sockets = [Socket() for _ in hosts]
    assert all(all_.admit(socket, host) for socket, host in zip(sockets, hosts, strict=True))
    return sockets


def test_the_one_that_is_waited_for_longest_makes_room_for_a_newcomer_of_its_address() -> None:
    all_ = connections()
    first, second, third = admitted(all_, *["192.0.2.1"] * 3)
    all_.waits(first)  # it has just finished a request
    (newcomer,) = admitted(all_, "192.0.2.1")
    assert [s.evicted for s in (first, second, third, newcomer)] == [False, True, False, False]
    assert all_.open == 3


def test_what_is_being_served_is_never_ended_for_a_newcomer() -> None:
    all_ = connections()
    busy = admitted(all_, *["192.0.2.1"] * 3)
    for socket in busy:
        all_.serves(socket)
    assert not all_.admit(Socket(), "192.0.2.1")
    assert not any(socket.evicted for socket in busy)
    admitted(all_, "198.51.100.1")


def test_who_has_just_sent_something_is_passed_over() -> None:
    all_ = connections()
    first, second, _ = admitted(all_, *["192.0.2.1"] * 3)
    first.unread = True
    admitted(all_, "192.0.2.1")
    assert (first.evicted, second.evicted) == (False, True)


def test_who_is_read_later_goes_before_a_newcomer_is_refused_and_after_who_is_silent() -> None:
    all_ = connections()
    first, second, silent = admitted(all_, *["192.0.2.1"] * 3)
    for socket in (first, second):
        socket.unread = socket.put_off = True
    crowd = [Socket(unread=True, put_off=True) for _ in range(2)]
    for newcomer in crowd:
        assert all_.admit(newcomer, "192.0.2.1")
    assert [s.evicted for s in (first, second, silent, *crowd)] == [True, False, True, False, False]


def test_where_everybody_has_sent_something_and_none_is_read_later_a_newcomer_is_refused() -> None:
    all_ = connections()
    for socket in admitted(all_, *["192.0.2.1"] * 3):
        socket.unread = True
    assert not all_.admit(Socket(), "192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other"),
    [("192.0.2.1", "192.0.2.200"), ("2001:db8:1:2::1", "2001:db8:1:3::1"), ("::ffff:192.0.2.1", "192.0.2.9")],
)
def test_a_site_is_bounded_as_a_whole(one: str, other: str) -> None:
    all_ = connections()
    sockets = admitted(all_, one, one, other, other, other)
    assert all_.open == 4
    assert sockets[0].evicted


def test_who_has_the_most_makes_room_when_all_is_taken() -> None:
    all_ = connections()
    greedy = admitted(all_, *["192.0.2.1"] * 3)
    modest = admitted(all_, "198.51.100.1", "203.0.113.1", "203.0.113.2")
    admitted(all_, "198.18.0.1")
    assert sum(socket.evicted for socket in greedy) == 1
    assert not any(socket.evicted for socket in modest)


def test_a_proxys_connections_are_bounded_only_by_what_there_is() -> None:
    all_ = connections()
    behind = admitted(all_, *["10.0.0.1"] * 6)
    assert not any(socket.evicted for socket in behind)
    admitted(all_, "10.0.0.1")
    assert sum(socket.evicted for socket in behind) == 1


def test_whoever_leaves_is_counted_out_once() -> None:
    all_ = connections()
    (socket,) = admitted(all_, "192.0.2.1")
    all_.leave(socket)
    all_.leave(socket)
    assert all_.open == 0
    assert not all_._groups


def test_bounds_follow_from_the_descriptors_that_there_are() -> None:
    assert raise_descriptor_limit() >= 256


def test_the_account_with_most_streams_gives_up_its_oldest() -> None:
    streams = OpenStreams(account_max=3, network_max=4, everybody_max=10)
    ended: list[str] = []
    greedy = [streams.take("greedy", "net") for _ in range(3)]
    for number, stream in enumerate(greedy):
        stream.on_end = lambda number=number: ended.append(f"greedy {number}")  # type: ignore[misc]
    streams.take("a", "net")
    streams.take("b", "net")
    assert ended == ["greedy 0"]
    assert (streams.of("greedy"), streams.count) == (2, 4)
    streams.close(greedy[0])
    assert streams.count == 4


def test_streams_of_equals_are_refused_and_an_account_has_its_own_bound() -> None:
    streams = OpenStreams(account_max=1, network_max=2, everybody_max=2)
    for name in "ab":
        streams.take(name, "net")
    with pytest.raises(Problem) as full:
        streams.take("c", "other")
    with pytest.raises(Problem) as own:
        streams.take("a", "net")
    assert (full.value.code, own.value.code) == ("streams_busy", "too_many_streams")
    assert full.value.headers["Retry-After"] == own.value.headers["Retry-After"] == "10"


def test_bodies_that_are_held_are_bounded_for_a_network_and_for_everybody() -> None:
    held = HeldBodies(100, 60)
    assert held.hold("a", 60) is None
    assert held.hold("a", 1) == "too_many_bodies"
    assert held.hold("b", 41) == "bodies_busy"
    assert held.hold("b", 40) is None
    held.release("a", 60)
    assert held.hold("c", 60) is None
