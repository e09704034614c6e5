"""What the generation side refuses, and what can go wrong."""

from __future__ import annotations

from ledger.errors import OwnError, Refusal


class GenerationError(OwnError):
    """Something went wrong while making an image."""

    code = "generation_failed"
    message = "Something went wrong while making an image."


class NotDecided(Exception):
    """Nothing was decided and nothing is recorded, so that the same command can be asked again."""


class NotDue(NotDecided):
    """The job's deadline has not passed by the log's clock."""


class NotWaiting(NotDecided):
    """There is nothing to stop (any more)."""


class AskTheWorker(NotDecided):
    """A worker has the job: whether it is cancelled is known with its next heartbeat."""


class NotTheHolder(NotDecided):
    """A report came from somebody who does not hold the lease. Nothing is recorded about it: a
    forged report must not use up the command key of the true one.
    """

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


class UploadRefused(GenerationError):
    """What was uploaded is not taken."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class SketchRejected(UploadRefused):
    """The sketch is not an image we can work with."""


class TooManyUploads(UploadRefused):
    """As many uploads of this network wait as may."""

    def __init__(self) -> None:
        detail = "Other uploads from your network are being read. Send this one again in a moment."
        super().__init__("too_many_uploads", detail)


class UploadsBusy(UploadRefused):
    """As many uploads wait as may, of everybody together."""

    def __init__(self) -> None:
        detail = "So many uploads are being read that we take no more just now. Send it again."
        super().__init__("uploads_busy", detail)


class ResultRejected(GenerationError):
    """The image that came back is not one we would deliver."""

    code = "result_rejected"
    message = "The image that came back is not one that we would deliver."


class ResultBlank(ResultRejected):
    """An image came back on which nothing can be seen: a prompt or a sketch can cause that on any worker."""


class ObjectMissing(GenerationError):
    """There is no such object."""

    code = "object_missing"
    message = "There is no such object."


class ObjectTaken(GenerationError):
    """There is such an object already, and it is another one."""

    code = "object_taken"
    message = "There is such an object already, and it is another one."


class JobNotFound(Refusal):
    """The job never began, or belongs to another account."""

    code = "job_not_found"
    message = "There is no such generation."


class JobAlreadyEnded(Refusal):
    """Details: `state`."""

    code = "job_already_ended"
    message = "This generation has already ended."


class StaleLease(Refusal):
    """Details: `state` and `epoch`."""

    code = "stale_lease"
    message = "This job is leased to somebody else, or no longer leased at all."


class NoWorkerCanServe(Refusal):
    """Details: `graph`."""

    code = "no_worker_can_serve"
    message = "No worker can make this kind of image."


class TooManyInFlight(Refusal):
    """Details: `limit`."""

    code = "too_many_in_flight"
    message = "Too many of your images are waiting or being painted. Let some of them finish first."


class TooManyPaidApart(Refusal):
    """Details: `limit`."""

    code = "too_many_paid_apart"
    message = "Too many images wait for payments of their own. Pay or cancel some of them, or buy credits."


class QueueTooLongToHold(Refusal):
    """Details: `seconds_max`."""

    code = "queue_too_long_to_hold"
    message = (
        "The queue is longer than a payment can be held for one image. Buy credits, and it waits its turn."
    )


class AllowanceSharedOut(Refusal):
    """Details: `cap`."""

    code = "allowance_shared_out"
    message = "Today's free images for your network are used up. They come back at midnight UTC."


class QueueFull(Refusal):
    """The queue has as many jobs as it may."""

    code = "queue_full"
    message = "So many images are waiting that we take no more just now. Try again in a minute."


class OutOfOrder(Refusal):
    """Details: `newest`."""

    code = "out_of_order"
    message = "A newer frame of this session has been sent already."


class SessionSpendCapReached(Refusal):
    """Details: `limit`, `spent` and `paused_by`."""

    code = "session_spend_cap_reached"
    message = "This live session is paused: it has reached its spending limit. Raise the limit to go on."


class SessionPaused(Refusal):
    """Details: `paused_by`."""

    code = "session_paused"
    message = "This live session is paused. Resume it to go on."


class TooManyVariations(Refusal):
    """Details: `limit`."""

    code = "too_many_variations"
    message = "This session has had all the variations it may have."


class WorkerNotAllowed(GenerationError):
    """This worker's credentials are not valid."""

    code = "worker_not_allowed"
    message = "This worker's credentials are not valid."
