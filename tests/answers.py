"""A person who answers as a test tells them to, and remembers what was asked."""

from __future__ import annotations

from collections.abc import Sequence

from remote.errors import UnknownHostKey
from remote.ssh.questions import Questions


class Answers(Questions):
    """Gives the passwords and passphrases in order, then none; trusts every new key unless told otherwise."""

    def __init__(self, passwords: Sequence[str] = (), *, passphrases: Sequence[str] = (), trusts: bool = True) -> None:
        self._passwords, self._passphrases, self._trusts = list(passwords), list(passphrases), trusts
        self.asked: list[str] = []
        self.told: list[str] = []

    def password(self, who: str, *, again: bool, is_target: bool) -> str | None:
        self.asked.append(f"password of {who}" + (" again" if again else "") + ("" if is_target else " (on the way)"))
        return self._passwords.pop(0) if self._passwords else None

    def passphrase(self, path: str, *, again: bool) -> str | None:
        self.asked.append(f"passphrase of {path}" + (" again" if again else ""))
        return self._passphrases.pop(0) if self._passphrases else None

    def trust(self, unknown: UnknownHostKey) -> bool:
        self.asked.append(f"trust {unknown.fingerprint}")
        return self._trusts

    def tell(self, text: str) -> None:
        self.told.append(text)
