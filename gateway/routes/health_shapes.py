"""What `/health` answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gateway.routes.shapes import Shape


class ProjectionsHealthOut(Shape):
    """The read models."""

    position: int = Field(description="Up to where they have read the log.")
    stopped: bool


class RefusedOut(Shape):
    """Notifications that were not kept since this process began."""

    reason: str = Field(description="Of the last one: signature, age, version, mode or unreadable.")
    detail: str
    at: datetime
    times: dict[str, int] = Field(description="How many, by reason.")


class FollowingOut(Shape):
    """How far a chain was read."""

    height: int | None = Field(description="The newest block that was read; null before the first.")
    behind: int = Field(description="Blocks that its source had beyond that one when it last answered.")
    as_of: datetime | None = Field(
        description="The chain was read to its end then, or later; null if it never was."
    )
    fault: str = Field(description="Why the newest attempt failed; empty if it did not.")


class RailHealthOut(Shape):
    """A payment rail."""

    ok: bool
    detail: str
    receivable: dict[str, int] | None = Field(
        description="At most so much can arrive now, by asset, in minor units; null where nothing limits it."
    )
    following: FollowingOut | None = Field(
        description="The chain that it follows; null where it follows none."
    )
    listening: bool = Field(description="Whether its stream of notifications is open.")
    caught_up: bool = Field(description="Whether what was paid while we were away has been asked for.")
    unmatched_hints: int = Field(description="Notifications set aside because they fit no payment.")
    refused: RefusedOut | None = Field(description="Notifications that were refused; null if none was.")


class HealthOut(Shape):
    """Health, part by part."""

    ok: bool
    database: str
    projections: ProjectionsHealthOut
    wake_ups: str
    commands_waiting: int = Field(description="Commands that the log has not taken yet.")
    rails: dict[str, RailHealthOut]
    workers: int | None = Field(description="Workers heard of lately; null while the database is away.")
    workers_active: int | None = Field(
        description="Those of them that get work. 0: no image can be made at the moment."
    )
