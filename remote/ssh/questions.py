"""What only a person can answer while a connection is made."""

from __future__ import annotations

from remote.errors import UnknownHostKey


class Questions:
    """Nobody is there to ask: no secret is known, no new key is trusted, no news is told.

    `launcher` has one that asks on the terminal.  An answer of None means that there is none.
    """

    def password(self, who: str, *, again: bool, is_target: bool) -> str | None:
        """The password of `who` (user@host:port); `again` after one that was refused.

        `is_target` is False for a machine that is only passed through.
        """
        return None

    def passphrase(self, path: str, *, again: bool) -> str | None:
        """What unlocks the key file `path`."""
        return None

    def trust(self, unknown: UnknownHostKey) -> bool:
        """Whether a key that was never seen before is the host's own."""
        return False

    def tell(self, text: str) -> None:
        """Something a person may want to know while they wait."""


class TrustFirst(Questions):
    """Nobody is there, but a key that was never seen may be put on record (`--accept-new`)."""

    def trust(self, unknown: UnknownHostKey) -> bool:
        return True
