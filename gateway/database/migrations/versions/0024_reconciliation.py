"""What the outside says about our money, and where that differs from what we say."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE rail_movements (
        rail TEXT NOT NULL,
        movement_ref TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        asset TEXT NOT NULL,
        scale SMALLINT NOT NULL,
        amount_minor BIGINT NOT NULL,
        fee_minor BIGINT NOT NULL,
        parts_minor BIGINT,
        occurred_at TIMESTAMP WITH TIME ZONE NOT NULL,
        read_at TIMESTAMP WITH TIME ZONE NOT NULL,
        external_ref TEXT,
        compared BOOLEAN NOT NULL,
        PRIMARY KEY (rail, movement_ref)
    )
    """,
    "COMMENT ON COLUMN rail_movements.movement_ref IS 'the outside''s own name'",
    "COMMENT ON COLUMN rail_movements.subject IS 'whose money; its own name if it is no payer''s'",
    "COMMENT ON COLUMN rail_movements.scale IS 'decimal places of a minor unit'",
    "COMMENT ON COLUMN rail_movements.amount_minor IS 'adds to what is held for us'",
    "COMMENT ON COLUMN rail_movements.parts_minor IS 'the sum of what a payout pays out'",
    "COMMENT ON COLUMN rail_movements.compared IS 'with what our payments say'",
    "CREATE INDEX rail_movements_subject ON rail_movements (rail, subject)",
    "CREATE INDEX rail_movements_new ON rail_movements (rail, subject) WHERE NOT compared",
    """
    CREATE TABLE rail_differences (
        id BIGSERIAL NOT NULL,
        rail TEXT NOT NULL,
        subject TEXT NOT NULL,
        part TEXT NOT NULL,
        reason TEXT NOT NULL,
        asset TEXT NOT NULL,
        ours_minor BIGINT,
        theirs_minor BIGINT,
        payment_id TEXT,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
        closed_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id)
    )
    """,
    "COMMENT ON COLUMN rail_differences.ours_minor IS 'null: we know nothing of it'",
    "COMMENT ON COLUMN rail_differences.theirs_minor IS 'null: they know nothing of it'",
    "COMMENT ON COLUMN rail_differences.seen_at IS 'when both were compared last'",
    "COMMENT ON COLUMN rail_differences.closed_at IS 'when both agreed'",
    """
    CREATE UNIQUE INDEX rail_differences_open ON rail_differences (rail, subject, part)
    WHERE closed_at IS NULL
    """,
    """
    CREATE TABLE rail_books (
        rail TEXT NOT NULL,
        cursor TEXT,
        position BIGINT NOT NULL,
        opening JSON,
        read_at TIMESTAMP WITH TIME ZONE,
        compared_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (rail)
    )
    """,
    "COMMENT ON COLUMN rail_books.cursor IS 'up to where the outside''s books were read'",
    "COMMENT ON COLUMN rail_books.position IS 'up to which event ours were compared'",
    "COMMENT ON COLUMN rail_books.opening IS 'what was held before the first movement, by asset'",
    "COMMENT ON COLUMN rail_books.read_at IS 'when nothing more was to be read'",
    """
    CREATE TABLE rail_reconciliations (
        rail TEXT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (rail)
    )
    """,
    "COMMENT ON COLUMN rail_reconciliations.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN rail_reconciliations.last_problem IS 'what the newest failure was; no personal data'",
    "CREATE INDEX rail_reconciliations_failing ON rail_reconciliations (attempts) WHERE attempts > 0",
)


def upgrade() -> None:
    """New tables: nothing of what is there is touched."""
    for statement in CHANGES:
        op.execute(statement)
