"""The migrations lead to the tables that the code declares."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gateway.database.schema import METADATA, MigrationBlocked, migrate
from generation.domain.paid_apart import PaidApart
from rails.domain.openings import Openings


@pytest.fixture
def engine(make_database: Callable[..., str]) -> sa.Engine:
    """An engine on an empty database."""
    url = make_database().replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def address_of(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_a_migrated_database_has_exactly_the_tables_that_the_packages_declare(engine: sa.Engine) -> None:
    migrate(address_of(engine))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, list(METADATA)) == []


def test_what_a_database_of_the_first_schema_holds_is_kept(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0001")
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO rail_hints (rail, hint_id, reference, state, tries, due_at, received_at)"
                " VALUES ('card', 'evt_1', 'cs_1', 'waiting', 0, now(), now())"
            )
        )
        connection.execute(sa.text("INSERT INTO job_leftovers (job_id, due_at) VALUES ('job_1', now())"))
    migrate(address_of(engine))
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT id, notification_id FROM rail_notifications")).all()
        assert kept == [(1, "evt_1")]
        assert connection.execute(sa.text("SELECT job_id FROM job_orphaned_uploads")).scalar() == "job_1"


def test_migrating_again_changes_nothing(engine: sa.Engine) -> None:
    migrate(address_of(engine))
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO queue_clock (id, virtual_time) VALUES ('global', 5)"))
    migrate(address_of(engine))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT virtual_time FROM queue_clock")).scalar() == 5


def test_what_was_postponed_with_a_payment_stays_postponed_by_its_task(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0004")
    with engine.begin() as connection:
        for payment, problem in (("pay_1", "expire: KeyError"), ("pay_2", "price: RailUnavailable")):
            connection.execute(
                sa.text(
                    "INSERT INTO rail_retries (payment_id, rail, due_at, attempts, last_problem)"
                    " VALUES (:payment, 'card', now(), 3, :problem)"
                ),
                {"payment": payment, "problem": problem},
            )
    migrate(address_of(engine))
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT payment_id, task, attempts FROM rail_retries ORDER BY 1"))
        assert kept.all() == [("pay_1", "expire", 3), ("pay_2", "observe", 3)]


def test_payment_requests_that_are_open_keep_their_places(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0013")
    until = datetime.now(UTC) + timedelta(minutes=10)
    rows = [
        ("pay_1", "acct_a", "acct_a", True, until),
        ("pay_2", "acct_b", "acct_a", True, until),  # a guest's, who has signed in since
        ("pay_3", "acct_a", "acct_a", False, until),
        ("pay_4", "acct_c", "acct_c", True, until - timedelta(hours=1)),
    ]
    with engine.begin() as connection:
        for payment, account, opener, unpaid, expires in rows:
            connection.execute(
                sa.text(
                    "INSERT INTO rail_payments VALUES (:id, :account, 'card', :id, 'waiting', :unpaid, false,"
                    " NULL, :expires, now(), json_build_object('opened', json_build_object('account_id',"
                    " CAST(:opener AS text))))"
                ),
                {"id": payment, "account": account, "unpaid": unpaid, "expires": expires, "opener": opener},
            )
    migrate(address_of(engine))
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT * FROM rail_openings ORDER BY 1")).mappings().all()
    (row,) = kept
    openings = Openings.of("acct_a", row, datetime.now(UTC))
    assert (row["account_id"], openings.until) == ("acct_a", {"pay_1": until, "pay_2": until})


def test_payments_with_money_in_suspense_are_found_by_operators(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0021")

    def receipts(**known: tuple[str, int]) -> str:
        held = {name: {"status": status, "taken_minor": taken} for name, (status, taken) in known.items()}
        return json.dumps({"receipts": held})

    payments = {
        "pay_none": receipts(),
        "pay_paid": receipts(a=("settled", 0)),
        "pay_small": receipts(a=("settled", 0), b=("too_small", 0)),
        "pay_other": receipts(a=("mismatched", 0)),
        "pay_back": receipts(a=("mismatched", 500)),
    }
    with engine.begin() as connection:
        for payment_id, payment in payments.items():
            connection.execute(
                sa.text(
                    "INSERT INTO rail_payments (payment_id, account_id, rail, root_id, state, unpaid, unpriced,"
                    " quote_expires_at, opened_at, payment) VALUES (:id, 'acct_1', 'fake', :id, 'paid', false,"
                    " false, now(), now(), :payment)"
                ),
                {"id": payment_id, "payment": payment},
            )
    migrate(address_of(engine))
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT payment_id FROM rail_payments WHERE suspended ORDER BY 1"))
        assert found.scalars().all() == ["pay_other", "pay_small"]


def test_jobs_that_wait_for_payments_of_their_own_keep_their_places(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0015")
    soon = (datetime.now(UTC) + timedelta(minutes=10)).replace(second=0, microsecond=0)
    rows = [
        ("job_1", "acct_a", False, soon),
        ("job_2", "acct_a", False, soon + timedelta(seconds=59)),
        ("job_3", "acct_b", False, soon - timedelta(seconds=1)),
        ("job_4", "acct_b", True, soon),
        ("job_5", "acct_c", False, soon - timedelta(hours=1)),
    ]
    with engine.begin() as connection:
        for job, account, held, deadline in rows:
            connection.execute(
                sa.text(
                    "INSERT INTO job_queue (job_id, account_id, graph, state, tag, rank, held, requested_at,"
                    " deadline, refused_workers) VALUES (:job, :account, 'sketch@1', 'queued', 0, 0, :held,"
                    " now(), :deadline, '[]')"
                ),
                {"job": job, "account": account, "held": held, "deadline": deadline},
            )
    migrate(address_of(engine))
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT * FROM jobs_paid_apart")).mappings().all()
    counted = {row["counted_for"]: PaidApart.of(row["counted_for"], row, datetime.now(UTC)) for row in kept}
    minute = soon + timedelta(minutes=1)
    assert {name: apart.by_minute for name, apart in counted.items()} == {
        "acct_a": {minute: 2},
        "acct_b": {soon: 1},
        "all": {minute: 2, soon: 1},
    }
    assert {row["counted_for"]: row["until"] for row in kept} == {
        "acct_a": minute,
        "acct_b": soon,
        "all": minute,
    }


def test_the_positions_of_balances_become_those_of_what_moved_them(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0004")
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO balances VALUES ('acct_a', 5, 0, 0, 9), ('acct_b', 0, 0, 0, 12)")
        )
        lines = [("acct_a", 3), ("acct_a", 7), ("acct_b", 12)]
        connection.execute(
            sa.text(
                "INSERT INTO statement_entries VALUES"
                " (:account, :position, now(), 'granted', 1, 1, 0, 0, '', '', '')"
            ),
            [{"account": account, "position": position} for account, position in lines],
        )
    migrate(address_of(engine))
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT account_id, position FROM balances ORDER BY 1"))
        assert [tuple(row) for row in found] == [("acct_a", 7), ("acct_b", 12)]


def test_a_migration_lets_others_pass_while_somebody_holds_a_lock_and_is_done_afterwards(
    engine: sa.Engine,
) -> None:
    migrate(address_of(engine), "0005")
    read = sa.text("SELECT count(*) FROM job_funding")
    reader = engine.connect()
    reader.execute(read)  # a long report: its transaction stays open
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        with engine.begin() as another:
            another.execute(sa.text("SET LOCAL lock_timeout = '1ms'"))
            assert another.execute(read).scalar() == 0, "nobody waits behind the migration"
        if len(pauses) == 2:
            reader.close()

    migrate(address_of(engine), lock_timeout_milliseconds=20, pause=pause)
    assert len(pauses) == 2
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(attempts) FROM job_funding")).scalar() == 0


def test_what_was_migrated_before_a_lock_stays_done_and_what_is_in_the_way_is_said(engine: sa.Engine) -> None:
    migrate(address_of(engine), "0004")
    with engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM job_funding"))
        with pytest.raises(MigrationBlocked, match="Another session"):
            migrate(
                address_of(engine), "0007", lock_timeout_milliseconds=20, attempts_max=2, pause=lambda _: None
            )
        with engine.connect() as connection:
            version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    assert version == "0006"


@pytest.mark.parametrize(
    ("before", "after", "table"),
    [
        ("0001", "0002", "rail_hints"),
        ("0002", "0003", "account_due"),
        ("0003", "0004", "rail_notifications"),
        ("0004", "0005", "rail_retries"),
        ("0006", "0007", "job_funding"),
    ],
)
def test_no_migration_waits_for_a_lock_without_end(
    engine: sa.Engine, before: str, after: str, table: str
) -> None:
    migrate(address_of(engine), before)
    with engine.connect() as holder:
        holder.execute(sa.text(f"LOCK TABLE {table} IN ACCESS SHARE MODE"))
        with pytest.raises(MigrationBlocked):
            migrate(address_of(engine), after, lock_timeout_milliseconds=10, attempts_max=1)
    migrate(address_of(engine), after)
