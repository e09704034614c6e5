"""A state read from its snapshot has one object for equal strings and times, and the value it had."""

from __future__ import annotations

import msgspec

from ledger.domain.account import ACCOUNTS
from ledger.domain.holds import each
from ledger.domain.state import Account
from ledger.log.sharing import share
from tests.ledger.test_bounded_state import Life
from tests.ledger.world import after, funded, hold

read = msgspec.msgpack.Decoder(Account).decode
write = msgspec.msgpack.encode


def test_sharing_changes_no_value_whatever_happened_to_the_account() -> None:
    life = Life(seed=5)
    for _ in range(300):
        life.step()
        account = read(write(life.account))
        share(account)
        assert account == life.account
        assert write(account) == write(life.account)


def test_the_id_of_a_lot_is_one_object_in_the_lot_and_in_every_hold_of_it() -> None:
    account = read(write(with_holds(5)))
    share(account)
    ids = {lot.terms.lot_id: lot.terms.lot_id for lot in account.lots}
    slices = [part for each_hold in each(account.holds) for part in each_hold.slices]
    assert len(slices) >= 5
    assert all(part.lot_id is ids[part.lot_id] for part in slices)
    for holds in account.holds:
        assert all(key is kept.hold_id for key, kept in holds.items())


def test_what_states_have_in_common_by_default_stays_common() -> None:
    account = read(write(ACCOUNTS.initial))
    share(account)
    assert account == ACCOUNTS.initial
    assert ACCOUNTS.initial == Account()


def with_holds(count: int) -> Account:
    """An account with one paid lot and so many holds out of it."""
    return after(funded(100), *(hold(20, f"h{number}") for number in range(count)))
