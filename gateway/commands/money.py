"""The command line's groups about money: what can be typed. What is done is in `gateway.commands.payments`."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]
Actor = Annotated[str, typer.Option(help="Who does it: kept in the log.")]
Reason = Annotated[str, typer.Option(help="Why: kept in the log for ever, so without personal data.")]
Key = Annotated[str | None, typer.Option(help="The same command with the same key is done once.")]
PaymentArgument = Annotated[str, typer.Argument(metavar="PAYMENT", help="pay_…")]
MoneyArgument = Annotated[str, typer.Argument(metavar="MONEY", help="The money's name, as listed.")]
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="acct_…")]
To = Annotated[
    str | None,
    typer.Option(help="An invoice or address (of a chain, or name@host), where the rail needs one."),
]


ByHand = Annotated[bool, typer.Option("--by-hand", help="You send it yourself, and record it afterwards.")]


def _group() -> typer.Typer:
    return typer.Typer(rich_markup_mode=None, invoke_without_command=True)


payments_app = _group()
suspense_app = _group()
disputes_app = _group()
debts_app = _group()
operators_app = _group()


def add_to(app: typer.Typer) -> None:
    """Put the groups and commands of this module under the program."""
    for name, group in (
        ("payments", payments_app),
        ("suspense", suspense_app),
        ("disputes", disputes_app),
        ("debts", debts_app),
        ("operators", operators_app),
    ):
        app.add_typer(group, name=name)
    app.command("adjust")(adjust)
    app.command("forgive")(forgive)


@payments_app.callback()
def _payments(context: typer.Context, as_json: AsJson = False) -> None:
    """Payments: find them, show what happened, refund. Alone: the newest fifty."""
    if context.invoked_subcommand is None:
        list_payments(as_json=as_json, limit=50)


@suspense_app.callback()
def _suspense(context: typer.Context, as_json: AsJson = False) -> None:
    """Money that could not be credited: list it, accept, assign or return it."""
    if context.invoked_subcommand is None:
        list_suspense(as_json=as_json)


@disputes_app.callback()
def _disputes(context: typer.Context, as_json: AsJson = False) -> None:
    """Disputes, by the time until which evidence is taken."""
    if context.invoked_subcommand is None:
        list_disputes(as_json=as_json)


@debts_app.callback()
def _debts(context: typer.Context, as_json: AsJson = False) -> None:
    """Accounts that owe credits."""
    if context.invoked_subcommand is None:
        list_debts(as_json=as_json)


@operators_app.callback()
def _operators(context: typer.Context, as_json: AsJson = False) -> None:
    """People who may use the operators' page."""
    if context.invoked_subcommand is None:
        list_operators(as_json=as_json)


@payments_app.command("list")
def list_payments(
    search: Annotated[
        str, typer.Argument(help="A payment, account, refund, reference, money or e-mail address.")
    ] = "",
    rail: Annotated[str | None, typer.Option(help="Only of this rail.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest payments, or those that a name leads to."""
    from gateway.commands import payments

    raise typer.Exit(payments.list_payments(search, rail, state, limit, as_json=as_json))


@payments_app.command("show")
def show_payment(payment: PaymentArgument, as_json: AsJson = False) -> None:
    """A payment, and everything that happened to it."""
    from gateway.commands import payments

    raise typer.Exit(payments.show_payment(payment, as_json=as_json))


@payments_app.command("refund")
def refund(
    payment: PaymentArgument,
    actor: Actor,
    reason: Reason,
    lot: Annotated[str | None, typer.Option(help="Which credits, if it bought some more than once.")] = None,
    credits_: Annotated[
        int | None, typer.Option("--credits", min=1, help="How many; all if left out.")
    ] = None,
    amount_minor: Annotated[
        int | None, typer.Option(min=1, help="In minor units: at most what the credits cost.")
    ] = None,
    to: To = None,
    by_hand: ByHand = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Refund unspent credits of a payment; the running stack sends the money."""
    from gateway.commands import payments

    raise typer.Exit(
        payments.refund(
            payment,
            lot=lot,
            credits_=credits_,
            amount_minor=amount_minor,
            to=to,
            by_hand=by_hand,
            actor=actor,
            reason=reason,
            key=key,
            as_json=as_json,
        )
    )


@payments_app.command("refund-sent")
def refund_sent(
    payment: PaymentArgument,
    refund_id: Annotated[str, typer.Argument(metavar="REFUND", help="ref_…")],
    reference: Annotated[str, typer.Option(help="Where it is found: a transaction's id.")],
    actor: Actor,
    reason: Reason,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Record that a refund by hand was sent."""
    _end_refund(payment, refund_id, reference, actor, reason, key, as_json=as_json)


@payments_app.command("refund-failed")
def refund_failed(
    payment: PaymentArgument,
    refund_id: Annotated[str, typer.Argument(metavar="REFUND", help="ref_…")],
    actor: Actor,
    reason: Reason,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Record that a refund by hand cannot be sent: its credits go back."""
    _end_refund(payment, refund_id, None, actor, reason, key, as_json=as_json)


def _end_refund(
    payment: str,
    refund_id: str,
    reference: str | None,
    actor: str,
    reason: str,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    from gateway.commands import payments

    raise typer.Exit(
        payments.end_refund(
            payment, refund_id, reference=reference, actor=actor, reason=reason, key=key, as_json=as_json
        )
    )


@suspense_app.command("list")
def list_suspense(as_json: AsJson = False) -> None:
    """Money of the wrong asset, too small or without a price, and notifications that fit nothing."""
    from gateway.commands import payments

    raise typer.Exit(payments.list_suspense(as_json=as_json))


@payments_app.command("reconcile")
def reconcile(
    rail: Annotated[
        str | None, typer.Option(help="Only this rail; all that tell their books by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read the rails' own books now and compare them with ours. Ends with 1 if anything differs."""
    from gateway.commands import reconciling

    raise typer.Exit(reconciling.reconcile(rail, as_json=as_json))


@payments_app.command("differences")
def differences(
    rail: Annotated[str | None, typer.Option(help="Only of this rail.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Those on which both came to agree.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    as_json: AsJson = False,
) -> None:
    """What the rails' books and ours do not agree on, by the last comparison."""
    from gateway.commands import reconciling

    raise typer.Exit(reconciling.list_differences(rail, closed=closed, limit=limit, as_json=as_json))


@suspense_app.command("accept")
def accept(
    payment: PaymentArgument,
    money: MoneyArgument,
    actor: Actor,
    reason: Reason,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Credit money of another asset at today's rate: its payer agreed."""
    _settle("accept", payment, money, None, None, actor, reason, key, as_json=as_json)


@suspense_app.command("assign")
def assign(
    payment: PaymentArgument,
    money: MoneyArgument,
    credits_: Annotated[int, typer.Option("--credits", min=1, max=1_000_000)],
    actor: Actor,
    reason: Reason,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Credit money with so many credits, whatever it is worth."""
    _settle("assign", payment, money, credits_, None, actor, reason, key, as_json=as_json)


@suspense_app.command("return")
def give_back(
    payment: PaymentArgument,
    money: MoneyArgument,
    actor: Actor,
    reason: Reason,
    to: To = None,
    by_hand: ByHand = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send money back to its payer."""
    _settle("return", payment, money, None, to, actor, reason, key, by_hand=by_hand, as_json=as_json)


def _settle(
    action: str,
    payment: str,
    money: str,
    credits_: int | None,
    to: str | None,
    actor: str,
    reason: str,
    key: str | None,
    *,
    by_hand: bool = False,
    as_json: bool,
) -> None:
    from gateway.commands import payments

    raise typer.Exit(
        payments.settle_suspense(
            action,
            payment,
            money,
            credits_=credits_,
            to=to,
            by_hand=by_hand,
            actor=actor,
            reason=reason,
            key=key,
            as_json=as_json,
        )
    )


@disputes_app.command("list")
def list_disputes(as_json: AsJson = False) -> None:
    """Open disputes, the nearest deadline first."""
    from gateway.commands import payments

    raise typer.Exit(payments.list_disputes(as_json=as_json))


@debts_app.command("list")
def list_debts(as_json: AsJson = False) -> None:
    """Accounts that owe credits, the largest debt first."""
    from gateway.commands import payments

    raise typer.Exit(payments.list_debts(as_json=as_json))


def adjust(
    account: AccountArgument,
    credits_: Annotated[int, typer.Option("--credits", help="Negative takes away.")],
    actor: Actor,
    reason: Reason,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Grant credits to an account, or take some away."""
    from gateway.commands import payments

    raise typer.Exit(payments.adjust(account, credits_, actor=actor, reason=reason, key=key, as_json=as_json))


def forgive(
    account: AccountArgument,
    credits_: Annotated[int, typer.Option("--credits", min=1)],
    actor: Actor,
    reason: Reason,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let a debt, or a part of it, go."""
    from gateway.commands import payments

    raise typer.Exit(
        payments.forgive(account, credits_, actor=actor, reason=reason, key=key, as_json=as_json)
    )


@operators_app.command("list")
def list_operators(as_json: AsJson = False) -> None:
    """Everybody who may act as an operator."""
    from gateway.commands import payments

    raise typer.Exit(payments.list_operators(as_json=as_json))


@operators_app.command("add")
def add_operator(
    who: Annotated[str, typer.Argument(help="An e-mail address or account of somebody who has signed in.")],
    actor: Actor,
) -> None:
    """Let a person use the operators' page."""
    from gateway.commands import payments

    raise typer.Exit(payments.change_operators(who, actor=actor, added=True))


@operators_app.command("remove")
def remove_operator(
    who: Annotated[str, typer.Argument(help="An e-mail address or account.")], actor: Actor
) -> None:
    """Take a person out: nothing they ask for is done from then on."""
    from gateway.commands import payments

    raise typer.Exit(payments.change_operators(who, actor=actor, added=False))
