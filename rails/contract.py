"""The contract between the payment core and a rail.

A rail emits facts; the core decides what to credit. A rail never posts to the ledger and
keeps no books: it opens a payment request, and afterwards answers one question, `observe`, with
everything it knows now about the money that arrived. Webhooks and streams are only notifications
that it is time to ask. Powers that not every rail has are small protocols of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ledger.clock import Clock
from ledger.errors import OwnError
from ledger.identifiers import AccountId, PaymentId
from ledger.money import Asset, Money
from rails.breakdown import Breakdown


class RailError(OwnError):
    """The payment rail failed."""

    code = "rail_failed"
    message = "The payment rail failed."


class RailUnavailable(RailError):
    """The payment rail cannot be reached right now; nothing is known to have changed."""

    code = "rail_unavailable"
    message = "The payment rail cannot be reached right now; nothing is known to have changed."


class RailProtocolError(RailError):
    """The payment rail said something its protocol does not allow."""

    code = "rail_protocol_broken"
    message = "The payment rail said something that its protocol does not allow."


class RejectionReason(StrEnum):
    """Why a notification was refused, so that whoever set it up can tell what to mend."""

    SIGNATURE = "signature"
    """It is not signed with our secret."""
    AGE = "age"
    """It was signed too long ago, or in the future."""
    VERSION = "version"
    """It has the shapes of another version of the rail's API."""
    MODE = "mode"
    """It is about test money where real money is taken, or the other way round."""
    UNREADABLE = "unreadable"
    """It is genuine and not what the rail's protocol says."""


class NotificationRejected(RailError):
    """The notification is not authentic or not well-formed."""

    code = "notification_rejected"
    message = "The notification is not authentic or not well-formed."

    def __init__(self, detail: str = "", *, reason: RejectionReason | None = None) -> None:
        self.reason = RejectionReason.UNREADABLE if reason is None else reason
        self.detail = detail or self.message
        """For operators: it quotes nothing of the notification but its version."""
        super().__init__(self.detail)


class ReceiptState(StrEnum):
    """What became of one funds receipt."""

    SEEN = "seen"
    """On its way; may still vanish. Never credited."""
    HELD = "held"
    """Locked for us until we capture or release it (hold invoices)."""
    SETTLED = "settled"
    """Ours, finally by the rail's own rule."""
    REVERSED = "reversed"
    """Taken back or replaced: a reorg, a refund outside of us, a bounced debit."""
    DISPUTED = "disputed"
    """Funds withdrawn while a dispute is open."""
    RETURNED = "returned"
    """Money that was only held went back to its payer; none was ever ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FundsReceipt:
    """One funds receipt, named by the money itself and never by a message about it."""

    money_ref: str
    """`ln:<payment hash>`, `liquid:<txid>:<vout>`, `stripe:<payment intent>`: credited at most once."""
    amount: Money
    """What arrived (before the rail's fee), never what was asked."""
    state: ReceiptState
    first_seen_at: datetime
    """When the money was first seen in the world (block time if we were down)."""
    fee: Money | None = None
    """The rail's fee taken out of `amount`, where it is known."""
    reversed_amount: Money | None = None
    """The part taken back so far, for partial reversals and disputes."""
    external_ref: str | None = None
    """A reference an accountant can look up at the rail (never a preimage, never a secret)."""
    evidence_due_by: datetime | None = None
    """Of disputed money: until when the rail takes evidence, where it says so."""
    held_until: datetime | None = None
    """Of held money: until when it can surely be captured, where it goes back by itself after a time."""
    costs: Money | None = None
    """What the rail took for this money beside `fee` and has not given back, such as for a dispute."""
    breakdown: Breakdown | None = None
    """How `amount` came about, where the rail says that it is not just what was asked: a discount, tax."""

    def __post_init__(self) -> None:
        """Raises `ValueError` if the breakdown is not one of the amount."""
        parts = self.breakdown
        if parts is not None and (parts.paid_minor != self.amount.minor or not parts.is_sound()):
            raise ValueError("price, discount and tax do not add up to the amount")

    @property
    def covers_minor(self) -> int:
        """How much of what was asked this pays for."""
        return self.amount.minor if self.breakdown is None else self.breakdown.price_minor


class PaymentRequestStatus(StrEnum):
    """Whether the payment request is still open."""

    OPEN = "open"
    EXPIRED = "expired"
    DECLINED = "declined"
    """The payer tried and was refused; the payment request may still be open to another try."""
    CLOSED = "closed"


class Refund(StrEnum):
    """How an outgoing payment ended. Unknown is resolved by asking again, never by paying again."""

    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"


class RefundTo(StrEnum):
    """Where a refund goes."""

    ORIGIN = "origin"
    """Back to where the money came from: nothing has to be named."""
    INVOICE = "invoice"
    """To an invoice of the payer's, for exactly the amount or without one."""
    ADDRESS = "address"
    """To an address of the payer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentBack:
    """A refund that the core asked for, as the rail knows it."""

    key: str
    """As in `Refunds.refund`."""
    outcome: Refund


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything the rail knows now about one reference. Asking twice changes nothing."""

    reference: str
    status: PaymentRequestStatus
    receipts: Sequence[FundsReceipt] = ()
    decline_code: str | None = None
    """A short machine-readable reason that is safe to show, such as `card_declined`."""
    refunds: Sequence[SentBack] = ()
    """Refunds that the core asked for, where the rail can tell: one that was sent may fail days later."""
    as_of: datetime | None = field(default=None, compare=False)
    """When all this was so, where the rail knows it better than whoever asked: not before it was asked, and of two
    observations of one reference the one that knows more has the later time. Needed where notifications bring one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the core asks a rail to open a payment request for."""

    payment_id: PaymentId
    account_id: AccountId
    ordinal: int
    """1, 2, 3 …: unique per rail for ever (a derivation index, for example)."""
    amount_due: Money
    description: str
    expires_at: datetime
    return_url: str
    """Where a hosted payment page should send the payer afterwards."""
    hold: bool = False
    """Ask for money that is HELD until captured. Only for rails with `Holds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """How to pay, in terms any client can show without knowing the rail.

    `kind` is `redirect` (open `url`), `invoice` (show `uri` as QR, copy `text`) or `address`
    (show `uri` as QR, copy `text` = the bare address). `details` are extra public fields
    merged into the API's `instructions` object (`bolt11`, `address`, `asset_id`, `amount`…).
    """

    kind: str
    reference: str
    """The rail's own handle, used for `observe`."""
    uri: str | None = None
    text: str | None = None
    url: str | None = None
    details: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something may have changed: ask. `reference` None means "look at everything pending"."""

    reference: str | None
    cursor: str | None = None
    """Where to go on listening after this notification has been dealt with."""
    notification_id: str | None = None
    """The message's own id, for deduplication (a webhook event id)."""
    look: bool = True
    """False: nothing of ours changed; only the cursor is to move on, past what others have on the same account."""
    observation: Observation | None = None
    """What `observe` would have answered when the rail noticed, with `as_of`: nothing has to be asked again. It comes
    from a rail that asked the outside itself, never from a message. It is not kept: what is dealt with later, is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether new payments may be opened on a rail now, and a sentence why not."""

    ok: bool
    detail: str = ""
    receivable: Mapping[str, int] | None = None
    """At most so much can arrive now, by asset code, in minor units; None where nothing limits it, or nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a rail can do."""

    assets: tuple[Asset, ...]
    """What it can be paid in; the first is the default."""
    label: str
    """A payer's word for it: `Card`, `Lightning`, `USDT / L-BTC`."""
    minimum: Mapping[str, int]
    """Least payable amount by asset code, in minor units."""
    maximum: Mapping[str, int]
    """Most payable amount by asset code, in minor units."""
    order: int
    """Where it stands among the choices offered, lowest first."""
    quote_seconds: int
    """How long a quote stands."""
    payer_learns_secret: bool = False
    """Whether paying tells the payer the secret whose SHA-256 is `payment_hash` among the instructions' details, in
    hex. `text` is then what a program can pay."""
    asked_in: Mapping[str, int] = field(default_factory=dict)
    """What people are asked to pay is a whole multiple of this many minor units, by asset code; of others, of one.
    Of what arrives every minor unit counts."""
    refund_to: RefundTo | None = None
    """Where money is sent back to; None if that is for an operator to find out. A rail without `Refunds` names
    it, too, if an operator can send money there by hand."""
    refund_fee_per_mille: int = 0
    """What sending a refund may cost us, of its amount. Kept back from what people ask for themselves: who owns the
    way there would earn it with every refund."""
    refund_fee_least: int = 0
    """The same at least, in minor units."""
    tax_on_top: bool = False
    """Whether the rail adds tax to what is asked, where it is due."""


class Rail(Protocol):
    """A way for money to arrive. All calls may raise `RailUnavailable`."""

    name: str
    capabilities: Capabilities

    async def open(self, order: Order) -> Instructions:
        """Open a payment request. Idempotent by `order.payment_id`: asking again gives the same one."""

    async def observe(self, reference: str) -> Observation:
        """The truth about one reference, asked from the outside. Changes nothing."""

    def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        """Notifications for ever, first those missed since `cursor`. None means from the very beginning."""

    async def health(self) -> Health:
        """Ask the rail whether it can take payments now."""

    async def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class Webhooks(Protocol):
    """A rail that is told by HTTP. Rails without it answer 404 at `/v1/hooks/<rail>`."""

    def verify_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Notification]:
        """Check the signature over the raw body. Raises `NotificationRejected`. No side effects."""


@runtime_checkable
class Expiry(Protocol):
    """A rail whose open payment requests can be closed early."""

    async def cancel(self, reference: str) -> Observation:
        """Close an unpaid payment request. Idempotent; money already there wins."""


@runtime_checkable
class NoticesOutages(Protocol):
    """A rail that notices by itself, while it listens, that its other side has gone."""

    async def outage(self) -> Health:
        """Wait until the other side has just been lost, and say so. Its return is found by asking `health`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How far a rail has read the chain that it follows."""

    height: int | None
    """The newest block that was read; None before the first."""
    behind: int
    """Blocks that its source had beyond that one when it last answered."""
    as_of: datetime | None
    """The chain was read to its end then, or later; None if it never was."""
    fault: str = ""
    """Why the newest attempt failed; empty if it did not."""


@runtime_checkable
class Follows(Protocol):
    """A rail that follows a chain by itself."""

    def following(self) -> Following:
        """What its newest attempt found. Asks nobody."""


@runtime_checkable
class CountsBlocks(Protocol):
    """A rail whose money becomes final by blocks."""

    def confirmations(self, money_ref: str) -> int | None:
        """How many blocks confirm this money by now, 0 while it waits; None if this process does not know. Asks
        nobody."""


@runtime_checkable
class Holds(Protocol):
    """A rail that can hold money and let go of it again."""

    async def capture(self, reference: str) -> Observation:
        """Take the held money. Idempotent; the returned observation tells what is so now."""

    async def release(self, reference: str) -> Observation:
        """Give the held money back and close the payment request; close it if no money has come. Idempotent."""


@runtime_checkable
class Refunds(Protocol):
    """A rail that can send money back."""

    async def refund(self, reference: str, amount: Money, destination: str | None, key: str) -> Refund:
        """Send back at most once per `key`, however often it is asked. Raises `RailUnavailable` only before
        anything was sent."""


class RefundImpossible(RailError):
    """Nothing was sent, and nothing will be: there is nobody to send it to, or not this amount."""

    code = "refund_impossible"
    message = "The money cannot be sent there."


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRefund:
    """What exactly is paid for one refund. The core keeps it before anything is sent, and never asks for another."""

    destination: str
    """What `Refunds.refund` is called with from then on."""
    claim: str
    """The outside's own name of that payment, made at most once: no two refunds may have the same."""


@runtime_checkable
class PreparesRefunds(Protocol):
    """A rail that has to find out first what exactly it pays, or that pays the same thing only once.

    Such a rail is asked by the same destination for two refunds, and by one whose owner gives another answer each
    time: only what was prepared, and claimed by this refund alone, is ever paid.
    """

    def destination_fault(self, destination: str, amount: Money) -> str | None:
        """A code if nothing can be sent there, as far as it can be told by reading alone. Asks nobody."""

    async def prepare_refund(self, amount: Money, destination: str) -> PreparedRefund:
        """Sends nothing. Raises `RailUnavailable` if it may go better later, and `RefundImpossible`."""


@runtime_checkable
class RefundCosts(Protocol):
    """A rail that takes something for sending money back."""

    async def refund_cost(self, destination: str | None, key: str) -> Money | None:
        """What a refund that was sent has cost beside its amount; None if the rail does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReference:
    """A payment request that the core knows of. Kept for ever: late money still finds its payment."""

    reference: str
    payment_id: PaymentId
    ordinal: int


class ReferenceStore(Protocol):
    """What the core remembers for a rail, so that a rail needs no tables of its own."""

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """Every reference ever opened on this rail, in order of `ordinal`."""

    async def cursor(self, rail: str) -> str | None:
        """The newest cursor that was kept of this rail's notifications; None before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RailContext:
    """What a rail is built with. Nothing else is global."""

    clock: Clock
    references: ReferenceStore
    production: bool
    """Refuse sandbox endpoints, default secrets and test keys if true."""


class RailPlugin(Protocol):
    """The entry point `llamasketch.rails` names an object with this shape.

    `pyproject.toml`: `[project.entry-points."llamasketch.rails"] card = "rails.stripe.plugin:plugin"`.
    """

    name: str
    """The rail's public name: `card`, `lightning`, `liquid`."""

    def configured(self, environ: Mapping[str, str]) -> bool:
        """Whether the environment has what this rail needs. Without it the rail is absent."""

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        """Build the rail. Raises `ValueError` with one clear sentence on bad configuration."""
