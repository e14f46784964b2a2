"""The errors of the command line itself, and the exit status of every error there is."""

from __future__ import annotations

from typing import Any


class LaunchError(Exception):
    """What failed and on what; `hint` is the next thing to type, `code` a stable word for scripts.

    `data` is what was found out nevertheless, for --json.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data
        if code:
            self.code = code


class NoSuchRun(LaunchError):
    code = "run_not_found"


class NoSuchHost(LaunchError):
    code = "host_not_found"


class RunFailed(LaunchError):
    """The run ended, and not well."""

    code = "run_failed"


class VerificationFailed(LaunchError):
    """The adapter is not what it should be."""

    code = "verification_failed"


class NotFinished(LaunchError):
    """The run is still under way."""

    code = "run_not_finished"


EXIT_USAGE = 2
EXIT_OWN_FAILURE = 255
"""Of `exec` and `shell`, where every other status is the host's."""
EXIT_DETACHED = 130
_EXIT = {
    "usage": EXIT_USAGE,
    "spec_invalid": EXIT_USAGE,
    "address_invalid": EXIT_USAGE,
    "authentication_failed": 3,
    "host_key_unknown": 3,
    "host_key_changed": 3,
    "other_machine": 3,
    "run_not_found": 4,
    "host_not_found": 4,
    "not_found": 4,
    "unreachable": 5,
    "timed_out": 5,
    "exec_refused": 5,
    "run_failed": 6,
    "verification_failed": 7,
    "adapter_rejected": 7,
    "run_not_finished": 8,
    "time_limit": 124,
    "interrupted": EXIT_DETACHED,
}


def exit_status(code: str) -> int:
    """The process's exit status for an error's code; 1 where nothing more precise is promised."""
    return _EXIT.get(code, 1)
