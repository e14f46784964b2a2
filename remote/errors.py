"""The one family of errors that `remote` raises."""

from __future__ import annotations


class RemoteError(Exception):
    """What failed and on which host; `hint` is the next thing to type, `code` a stable word for scripts."""

    code = "remote_failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Unreachable(RemoteError):
    """The host did not answer, or the connection broke before a command's end was known."""

    code = "unreachable"


class AuthenticationFailed(RemoteError):
    """The host answered and refused every key that was offered."""

    code = "authentication_failed"


class UnknownHostKey(RemoteError):
    """Nothing vouches for the host's key yet; `fingerprint` is what to compare."""

    code = "host_key_unknown"

    def __init__(self, message: str, *, fingerprint: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fingerprint = fingerprint


class ChangedHostKey(RemoteError):
    """The host shows another key than the one on record."""

    code = "host_key_changed"


class BadAddress(RemoteError):
    """A text that should say how to log in can't be understood."""

    code = "address_invalid"


class CommandFailed(RemoteError):
    """A command that had to succeed ended with another status than 0."""

    code = "command_failed"


class TimedOut(RemoteError):
    """A command did not end within its limit; it was ended."""

    code = "timed_out"


class NotFound(RemoteError):
    """What was asked for does not lie on the host."""

    code = "not_found"


class BadReply(RemoteError):
    """The host's answer is not what the protocol says: a broken or hostile host."""

    code = "host_reply_invalid"
