"""What the generation side refuses, and what can go wrong."""

from __future__ import annotations

from ledger.errors import Refusal


class GenerationError(Exception):
    """Something went wrong while making an image."""


class SketchRejected(GenerationError):
    """The sketch is not an image we can work with."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class ResultRejected(GenerationError):
    """The image that came back is not one we would deliver."""


class ObjectMissing(GenerationError):
    """There is no such object."""


class ObjectTaken(GenerationError):
    """There is such an object already, and it is another one."""


class JobNotFound(Refusal):
    """There is no such generation."""


class JobAlreadyEnded(Refusal):
    """This generation has already ended."""


class StaleLease(Refusal):
    """This job is leased to somebody else, or no longer leased at all."""


class NoWorkerCanServe(Refusal):
    """No worker can make this kind of image."""


class TooManyInFlight(Refusal):
    """Too many of your images are waiting or being painted. Let some of them finish first."""


class AllowanceSharedOut(Refusal):
    """Today's free images for your network are used up. They come back at midnight UTC."""


class QueueFull(Refusal):
    """So many images are waiting that we take no more just now. Try again in a minute."""


class OutOfOrder(Refusal):
    """A newer frame of this session has been sent already."""


class SessionSpendCapReached(Refusal):
    """This live session is paused: it has reached its spending limit. Raise the limit to go on."""


class SessionPaused(Refusal):
    """This live session is paused. Resume it to go on."""


class TooManyVariations(Refusal):
    """This session has had all the variations it may have."""


class WorkerNotAllowed(GenerationError):
    """This worker's credentials are not valid."""
