"""The log's events lie in the table of `eventsourcing`: its own recorder reads them, position by position."""

from __future__ import annotations

from eventsourcing.postgres import PostgresApplicationRecorder

from ledger.log.recorder import open_datastore
from tests.log.conftest import StartSequencer
from tests.log.purse import add


async def test_the_librarys_own_recorder_reads_the_log(start: StartSequencer, log_database: str) -> None:
    sequencer = start()
    for key in ("one", "two"):
        await sequencer.submit(add(key, "purse_a", 3))
    await sequencer.submit(add("three", "purse_b", 4))
    with open_datastore(log_database) as datastore:
        stock = PostgresApplicationRecorder(datastore, events_table_name="stored_events")
        notifications = list(stock.select_notifications(start=1, limit=10))
        assert [(n.id, n.originator_id, n.originator_version) for n in notifications] == [
            (1, "purse_a", 1),
            (2, "purse_a", 2),
            (3, "purse_b", 1),
        ]
        assert {n.topic for n in notifications} == {"test.coins_added.v1"}
        assert stock.max_notification_id() == 3
        assert [event.originator_version for event in stock.select_events("purse_a")] == [1, 2]
