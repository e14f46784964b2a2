"""The one error of the host side: told to the laptop as code, message and hint."""

from __future__ import annotations


class Refused(Exception):
    """A request that can't be carried out."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
