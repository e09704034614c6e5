"""How many requests of an address are worked on at the same time, and who waits for whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.auth.networks import Origins
from gateway.bounds.connections import Connections
from gateway.bounds.turns import ALONE_AT_ONCE, CROWD_WAITING_MIN, FEW_MAX, Lane, Turn, Turns
from tests.gateway.test_pace import LIMITS, Clock, connections, opened
from tests.hostile.attacks import head
from tests.waiting import eventually


class Asked:
    """Requests, by name, in the order in which they began."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.began: dict[str, Turn] = {}

    def ask(self, name: str, address: str = "crowd", *, known: bool = False, who: str = "") -> None:
        """Each by a token of its own, unless it says by whose."""

        def start(turn: Turn) -> None:
            self.began[name] = turn

        self.turns.begin(address, start, known=known, who=who or name)

    def end(self, name: str) -> None:
        self.turns.end(self.began[name])


async def test_a_few_requests_of_an_address_begin_and_the_next_one_when_one_of_them_has_ended() -> None:
    asked = Asked(2)
    asked.ask("somebody else", "elsewhere")
    for name in "abcd":
        asked.ask(name)
    assert list(asked.began) == ["somebody else", "a", "b"]
    asked.end("a")
    asked.end("a")
    assert list(asked.began) == ["somebody else", "a", "b", "c"]
    asked.ask("another", "elsewhere")
    assert "another" in asked.began, "nobody waits for another address"


async def test_whoever_was_served_before_does_not_wait_for_those_who_come_anew() -> None:
    asked = Asked(1)
    asked.ask("somebody else", "elsewhere")
    for number in range(3):
        asked.ask(f"new {number}")
    for number in range(2):
        asked.ask(f"known {number}", known=True)
    assert list(asked.began)[1:] == ["new 0", "known 0"]
    for name in ("known 0", "new 0", "known 1", "new 1"):
        asked.end(name)
    assert list(asked.began)[1:] == ["new 0", "known 0", "known 1", "new 1", "new 2"]


async def test_an_address_that_is_alone_has_room_for_as_many_as_are_of_use() -> None:
    asked = Asked(1)
    for number in range(ALONE_AT_ONCE + CROWD_WAITING_MIN + 1):
        asked.ask(str(number))
    assert len(asked.began) == ALONE_AT_ONCE
    asked.end("0")
    assert len(asked.began) == ALONE_AT_ONCE + 1


@pytest.mark.parametrize(
    ("crowd_known", "address", "known"),
    [(False, "elsewhere", False), (True, "elsewhere", False), (False, "crowd", True)],
)
async def test_a_crowd_goes_one_by_one_while_somebody_asks_who_is_none(
    *, crowd_known: bool, address: str, known: bool
) -> None:
    asked = Asked(4)
    for number in range(ALONE_AT_ONCE + 100):
        asked.ask(str(number), known=crowd_known)
    asked.ask("she", address, known=known)
    assert "she" in asked.began, "she does not wait for them"
    asked.end("she")
    for number in range(ALONE_AT_ONCE + 10):
        asked.end(str(number))
    assert len(asked.began) == 1 + ALONE_AT_ONCE + 1 + 10, (
        "one when all of the first had ended, then one for one"
    )


async def test_a_crowd_of_newcomers_lets_nobody_wait_who_is_served_at_the_same_address_already() -> None:
    asked = Asked(4)
    for number in range(500):
        asked.ask(f"new {number}")
    for number in range(10):
        asked.ask(f"known {number}", known=True)
        assert f"known {number}" in asked.began
        asked.end(f"known {number}")


async def test_a_crowd_makes_way_for_whoever_is_served_but_not_for_ever() -> None:
    asked = Asked(1)
    asked.ask("she", "elsewhere")
    for number in range(100):
        asked.ask(str(number))
    asked.end("0")
    assert list(asked.began) == ["she", "0"], "she is served"
    asked.end("she")
    assert list(asked.began) == ["she", "0", "1"]
    asked.ask("she again", "elsewhere")
    asked.end("1")
    assert "2" not in asked.began
    await eventually(lambda: "2" in asked.began, "the crowd goes on while she is still served")


async def test_whoever_sends_many_by_one_token_stands_behind_the_others_at_the_same_address() -> None:
    asked = Asked(4)
    for number in range(FEW_MAX + ALONE_AT_ONCE + 100):
        asked.ask(str(number), known=True, who="many")
    assert len(asked.began) == FEW_MAX + ALONE_AT_ONCE
    for number in range(FEW_MAX):
        asked.ask(f"page {number}", known=True, who="she")
        assert f"page {number}" in asked.began, "she does not wait for them"
    for number in range(FEW_MAX):
        asked.end(f"page {number}")
    for number in range(FEW_MAX + ALONE_AT_ONCE):
        asked.end(str(number))
    assert len(asked.began) == FEW_MAX + ALONE_AT_ONCE + FEW_MAX + 1, "they go one by one"


async def test_many_by_one_token_are_no_crowd_to_themselves() -> None:
    asked = Asked(1)
    for number in range(500):
        asked.ask(str(number), known=True, who="many")
    for number in range(400):
        asked.end(str(number))
    assert len(asked.began) == FEW_MAX + ALONE_AT_ONCE + 400 - FEW_MAX
    for number in range(400, 500):
        asked.end(str(number))
    assert (asked.turns._lanes, asked.turns._under_way) == ({}, {})


async def test_whoever_had_many_under_way_stands_behind_with_the_next_few_too() -> None:
    asked = Asked(4)
    asked.ask("she", known=True)
    for number in range(FEW_MAX + 1):
        asked.ask(str(number), known=True, who="many")
    asked.end("she")
    for number in range(FEW_MAX + 1):
        asked.end(str(number))
    for number in range(3):
        asked.ask(f"her page {number}", known=True, who="she")
        asked.ask(f"more {number}", known=True, who="many")
    running = {name for name in asked.began if name.startswith(("her", "more"))} - {"more 0"}
    assert running == {f"her page {number}" for number in range(3)}, (
        "one of theirs at most is at work beside hers"
    )
    for number in range(3):
        asked.end(f"her page {number}")
    for number in range(3):
        asked.end(f"more {number}")
    assert (asked.turns._lanes, asked.turns._under_way, asked.turns._light_running) == ({}, {}, 0)


async def test_many_by_one_token_on_new_connections_stand_behind_too() -> None:
    asked = Asked(4)
    asked.ask("she", known=True)
    for number in range(FEW_MAX):
        asked.ask(str(number), who="many")
    assert list(asked.began) == ["she", "0", "1", "2", "3"]
    for number in range(FEW_MAX, 12):
        asked.ask(str(number), who="many")
    assert list(asked.began)[5:] == ["6"], "one beside those of whom nobody could know it"
    asked.end("6")
    assert list(asked.began)[5:] == ["6"], "the next one makes way for her"
    asked.end("she")


async def test_whoever_sends_few_again_stands_behind_no_longer() -> None:
    asked = Asked(4)
    for number in range(FEW_MAX + 1):
        asked.ask(str(number), known=True, who="many")
    for number in range(FEW_MAX + 1):
        asked.end(str(number))
    asked.ask("soon", known=True, who="many")
    assert asked.began["soon"].lane.many
    asked.end("soon")

    def later() -> bool:
        asked.ask("later", known=True, who="many")
        asked.end("later")
        return not asked.began["later"].lane.many

    await eventually(later, "the same token has few under way")
    assert asked.turns._many == {}


async def test_what_was_waited_for_counts_again_when_it_goes_on() -> None:
    asked = Asked(1)
    asked.ask("somebody else", "elsewhere")
    for name in "abc":
        asked.ask(name)
    await eventually(lambda: "b" in asked.began, "a waits for something else")
    asked.turns.goes_on(asked.began["a"])
    asked.end("b")
    assert "c" not in asked.began
    asked.end("a")
    assert "c" in asked.began
    asked.turns.goes_on(asked.began["a"])
    asked.end("c")
    asked.end("somebody else")
    assert (asked.turns._lanes, asked.turns._light_running) == ({}, 0)


async def test_requests_that_wait_for_something_else_hold_up_nobody_for_long() -> None:
    asked = Asked(1)
    asked.ask("somebody else", "elsewhere")
    for name in "abc":
        asked.ask(name)
    await eventually(lambda: "c" in asked.began, "others are let in although none has ended")
    for name in "abc":
        asked.end(name)
    assert not any(lane.address == "crowd" for lane in asked.turns._lanes)


async def test_hundreds_of_requests_of_an_address_are_all_answered_and_one_elsewhere_at_once() -> None:
    everybody = Connections(replace(LIMITS, requests_at_once_address=2), Origins([]), Clock())
    order: list[str] = []
    crowd = [opened(everybody, order=order) for _ in range(200)]
    other, _ = opened(everybody, "198.51.100.1", order)
    for protocol, _ in crowd:
        protocol.data_received(head("GET", "/"))
    other.data_received(head("GET", "/"))
    gone, _ = crowd[150]
    gone.connection_lost(None)
    await eventually(lambda: len(order) == 200, "all are answered but who has gone")
    assert order.index("198.51.100.1") < 50


async def test_behind_a_proxy_those_wait_for_each_other_whom_it_forwards_for() -> None:
    everybody = Connections(replace(LIMITS, requests_at_once_address=2), Origins(["192.0.2.1"]), Clock())
    turns, turn = everybody.turns, list[Turn]()

    def ask(forwarded: str, token: str) -> None:
        fields = (f"X-Forwarded-For: {forwarded}", f"Authorization: Bearer {token}")
        opened(everybody)[0].data_received(head("POST", "/", "Content-Length: 2", *fields) + b"{}")

    for address in ("203.0.113.9/32", "203.0.113.8/32"):
        for number in range(2):
            turns.begin(address, turn.append, known=True, who=f"other {number}")
    for number in range(5):
        ask("203.0.113.9:4711", f"a{number}")
    for forwarded in ("203.0.113.8", "6.6.6.6, 203.0.113.8"):
        ask(forwarded, "b")
    waiting = {lane.address: len(found.turns) for lane, found in turns._lanes.items()}
    assert waiting == {"203.0.113.9/32": 5, "203.0.113.8/32": 2}
    for each in turn:
        turns.end(each)
    await eventually(lambda: not turns._lanes, "all are answered")


async def test_a_proxy_that_does_not_say_for_whom_makes_nobody_wait() -> None:
    everybody = Connections(replace(LIMITS, requests_at_once_address=1), Origins(["192.0.2.1"]), Clock())
    order: list[str] = []
    for _ in range(50):
        opened(everybody, order=order)[0].data_received(head("POST", "/", "Content-Length: 2") + b"{}")
    assert not everybody.turns._lanes
    await eventually(lambda: len(order) == 50, "all are answered")


async def test_a_request_whose_body_comes_later_gives_its_turn_up_and_waits_for_another_one() -> None:
    everybody, order = connections(requests_at_once_address=1), list[str]()
    opened(everybody, "198.51.100.1", order)[0].data_received(head("GET", "/"))
    late = [opened(everybody, order=order)[0] for _ in range(3)]
    for protocol in late:
        protocol.data_received(head("POST", "/", "Content-Length: 2"))
    await eventually(lambda: len(order) == 1, "whoever is elsewhere is answered")
    turns = everybody.turns
    await eventually(lambda: not turns._lanes, "nobody who waits for a body counts")
    turn = asyncio.get_running_loop().create_future()
    turns.begin("192.0.2.1/32", turn.set_result, known=False, who="another")
    for protocol in late:
        protocol.data_received(b"{}")
    await eventually(lambda: len(turns._lanes[Lane("192.0.2.1/32", known=False)].turns) == 3, "all wait")
    assert len(order) == 1
    turns.end(await turn)
    await eventually(lambda: len(order) == 4, "they are answered, one by one")
    await eventually(lambda: not turns._lanes, "all turns have ended")


async def test_whoever_leaves_while_they_wait_for_a_turn_takes_none() -> None:
    everybody = connections(requests_at_once_address=1)
    turns, turn = everybody.turns, asyncio.get_running_loop().create_future()
    turns.begin("192.0.2.1/32", turn.set_result, known=False, who="another")
    gone, _ = opened(everybody)
    gone.data_received(head("POST", "/", "Content-Length: 2"))
    gone.data_received(b"{}")
    gone.connection_lost(None)
    turns.end(await turn)
    await eventually(lambda: not turns._lanes, "all turns have ended")
