"""Why there is no image, for a person: one sentence for every code. Nobody was charged for any of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from generation.domain.job import Job
from generation.domain.states import JobState


class Reason(StrEnum):
    """Why a job failed or was cancelled, where we decide it. Other codes come from workers, rails and ledger."""

    INPUTS_ERASED = "inputs_erased"
    BAD_RESULT = "bad_result"
    """What was uploaded is no image that we would deliver."""
    BLANK_IMAGE = "blank_image"
    """Nothing can be seen on what was uploaded. Workers that look for themselves report the same."""
    WORKER_LOST = "worker_lost"
    HOLD_CLOSED = "hold_closed"
    NOT_PAID = "not_paid"
    PAYMENT_FAILED = "payment_failed"


class CancelledBy(StrEnum):
    """Who did not want a job any more."""

    PERSON = "person"
    SESSION_PAUSED = "session_paused"


UNKNOWN = "It could not be painted."
NOT_CHARGED = "You were not charged."

FAILURES: Mapping[str, str] = {
    # The request itself: the same would fail everywhere.
    "blank_sketch": "The sketch is empty. Draw something first.",
    "inputs_refused": "Our machines do not accept this request. Change the prompt or the sketch.",
    "inputs_erased": "The sketch was erased before it could be painted.",
    "node_refused": "This sketch or prompt cannot be made into an image. Change one of them.",
    "sketch_unreadable": "The sketch is not a picture that can be read. Draw or upload it again.",
    # The machines: tried on others before we gave up.
    "bad_result": "Our machines gave back something that is not an image. Try again.",
    "blank_image": "Our machines gave back an empty image. Try again, or change the prompt.",
    "comfyui_fault": "Something broke in the machine that was painting it. Try again.",
    "driver_failed": "The graphics card that was painting it stopped working. Try again.",
    "given_back": "The machine painting it was switched off. Try again.",
    "graph_refused": "Our machines cannot make this kind of image at the moment. Try again.",
    "graph_unknown": "Our machines do not know this kind of image yet. Try again later.",
    "image_too_large": "The image came out too large to be kept. Try again, or use a simpler sketch.",
    "node_failed": "The machine failed while it was painting. Try again.",
    "out_of_memory": "Our machines ran out of memory. Try again in a minute.",
    "output_missing": "The machine finished without giving an image. Try again.",
    "run_hung": "The machine stopped making progress. Try again.",
    "run_interrupted": "The painting was interrupted. Try again.",
    "run_lost": "The machine lost track of the painting. Try again.",
    "server_died": "The machine stopped while it was painting. Try again.",
    "server_unreachable": "The painting machine did not answer. Try again.",
    "sketch_missing": "Our machines could not fetch the sketch. Try again.",
    "sketch_unreached": "Our machines could not reach the sketch. Try again.",
    "storage_failed": "The image was painted but could not be stored. Try again.",
    "storage_unreached": "The image was painted but could not be sent to us. Try again.",
    "worker_lost": "The machines painting it went away, several times. Try again.",
    # The credits reserved for it.
    "account_in_debt": "Credits used before are still to be paid. What you paid stays on your balance.",
    "account_merged": "Your balance moved to another account meanwhile. What you paid stays yours.",
    "deadline_passed": "Its time was over before the payment was taken. What you paid stays on your balance.",
    "hold_already_open": "Credits were reserved for it already. What you paid stays on your balance.",
    "hold_closed": "The credits reserved for it were released meanwhile.",
    "insufficient_credits": "What arrived was not enough for it. What you paid stays on your balance.",
    "invalid_amount": "The price could not be reserved. What you paid stays on your balance.",
    "lot_already_granted": "The price could not be reserved. What you paid stays on your balance.",
    # A payment for this image alone.
    "amount_too_large": "The price is above the most that can be paid this way. Pay another way.",
    "amount_too_small": "The price is below the least that can be paid this way. Pay another way.",
    "asset_not_accepted": "This payment method does not take that asset. Choose another one.",
    "cannot_hold": "This payment method cannot be used for a single image. Top up instead.",
    "not_paid": "It was not paid in time.",
    "payment_failed": "The payment went back before the image was ready.",
    "payment_retracted": "The payment for it could not be opened. Ask again.",
    "rail_closed": "This payment method is closed at the moment. Choose another one.",
    "too_many_open_payments": "Too many of your payments are open. Finish or cancel one first.",
    "topup_unclear": "It was not clear how much should be paid. Ask again.",
    "unknown_rail": "There is no such payment method. Choose another one.",
}
"""By the code of `JobFailed.reason`."""

_CANCELLED: Mapping[str, str] = {
    "person": "You cancelled it.",
    "session_paused": "Its live session was paused.",
}


def sentence(job: Job) -> str | None:
    """What to tell the person about this job's end; None if there is nothing to explain."""
    match job.state:
        case JobState.FAILED:
            why = FAILURES.get(job.reason or "", UNKNOWN)
        case JobState.BLOCKED:
            why = "Our content rules do not allow this."
        case JobState.EXPIRED if job.hold_id is None and job.payment_id is None:
            why = FAILURES[Reason.NOT_PAID]
        case JobState.EXPIRED:
            why = "Nobody could paint it in time."
        case JobState.CANCELLED:
            why = _CANCELLED.get(job.reason or "", "It was cancelled.")
        case JobState.SUPERSEDED:
            why = "A newer frame of its live session took its place."
        case _:
            return None
    return f"{why} {NOT_CHARGED}"
