"""Why a message was not sent. What is said quotes the server's numbers and never its words: they may name people."""

from __future__ import annotations

from ledger.errors import OwnError


class MailError(OwnError):
    """A message could not be sent."""

    code = "mail_failed"
    message = "The message could not be sent."


class Postponed(MailError):
    """Nothing is wrong with the message: it is to be sent again later."""

    code = "mail_postponed"
    message = "The mail server did not take the message now."

    def __init__(self, reason: str) -> None:
        """`reason`: the step, and the reply's numbers or the kind of fault."""
        self.message = f"{type(self).message} {reason}"
        super().__init__(self.message)


class Refused(MailError):
    """The message will never be taken, however often it is sent."""

    code = "mail_refused"
    message = "The mail server refused the message for good."

    def __init__(self, reason: str) -> None:
        """`reason`: the step, and the reply's numbers."""
        self.message = f"{type(self).message} {reason}"
        super().__init__(self.message)


class NotAnAddress(MailError):
    """What is kept as a person's address is none to which mail can be sent."""

    code = "mail_not_an_address"
    message = "The address is not one to which mail can be sent."


class TooLarge(MailError):
    """The message would be larger than any letter of ours."""

    code = "mail_too_large"
    message = "The message is too large."
