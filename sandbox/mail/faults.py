"""What can go wrong at the stand-in mail server."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sandbox.common.faults import Faults

Count = Annotated[int, Meta(ge=0)]


class MailFaults(Faults):
    """Counts are of the next messages."""

    down: bool = False
    """Every connection is closed at once."""
    delay_ms: Count = 0
    """Each answer about a recipient comes late."""
    busy_recipients: Count = 0
    """451: try again later, as by greylisting."""
    unknown_recipients: Count = 0
    """550: there is no such mailbox."""
    busy_content: Count = 0
    """451 after the whole message; it is not kept."""
    refused_content: Count = 0
    """554 after the whole message; it is not kept."""
    dropped_at_recipient: Count = 0
    """The connection is cut before the message."""
    dropped_after_content: Count = 0
    """The message is kept, and the connection cut before the answer."""
    silent_after_content: Count = 0
    """The message is kept, and no answer comes."""
