"""The one family of errors that `remote` raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramiko import PKey


class RemoteError(Exception):
    """What failed and on which host; `hint` is the next thing to type, `code` a stable word for scripts."""

    code = "remote_failed"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code


class Unreachable(RemoteError):
    """The host did not answer, or the connection broke before a command's end was known.

    `passing`: it was turned away (a gateway that throttles, a machine that boots), so trying again soon makes sense;
    `short` is the message without what that means.
    """

    code = "unreachable"
    passing = False
    short = ""


class AuthenticationFailed(RemoteError):
    """The host answered and refused every key and password that was offered, or there was none to offer."""

    code = "authentication_failed"


class UnknownHostKey(RemoteError):
    """Nothing vouches for the host's key yet; `fingerprint` is what to compare, `key` (paramiko's) what `at` showed."""

    code = "host_key_unknown"

    def __init__(self, message: str, *, at: str, fingerprint: str, key: PKey, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.at = at
        self.fingerprint = fingerprint
        self.key = key


class ChangedHostKey(RemoteError):
    """A host shows another key than the one on record, or a revoked one; `key` (paramiko's) is what `at` showed."""

    code = "host_key_changed"

    def __init__(self, message: str, *, at: str, key: PKey, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.at = at
        self.key = key


class OtherMachine(RemoteError):
    """Another machine than the one on record answers under this address; nothing on it was touched."""

    code = "other_machine"


class CannotExecute(RemoteError):
    """The login works, but the host runs no commands for us."""

    code = "exec_refused"


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
