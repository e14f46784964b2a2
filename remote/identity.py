"""Which machine it is: an address is not an identity, because providers hand the same one to other machines."""

from __future__ import annotations

from dataclasses import dataclass

from remote import failure
from remote.errors import OtherMachine

MARKER_FILE = "box-id"
"""In `<workspace>/launch/` on the host; written once, and never changed."""


@dataclass(frozen=True)
class Identity:
    """What a machine says about itself; an empty field is not known.

    `hostname` and `provider_id` last as long as the rented instance, `marker` (a random number of ours) as long as its
    disk, `boot` until the next start.  None of it is secret, and a hostile machine can copy all of it: it keeps a
    person from working on the wrong machine, and nothing more.
    """

    hostname: str = ""
    provider_id: str = ""
    marker: str = ""
    boot: str = ""

    def differences(self, found: Identity) -> list[str]:
        """In words, what `found` says that this machine would not; a new boot is no difference."""
        pairs = (
            ("hostname", self.hostname, found.hostname),
            ("provider's id", self.provider_id, found.provider_id),
            ("marker on its disk", self.marker, found.marker),
        )
        return [f"{what} {now}, on record {then}" for what, then, now in pairs if then and now and then != now]

    def require(self, name: str, found: Identity) -> None:
        """Raise OtherMachine unless `found` can be this machine."""
        if differences := self.differences(found):
            raise failure.refusal(
                OtherMachine,
                f"{name}: another machine answers there ({'; '.join(differences)}); nothing on it was touched",
                "another machine",
                name,
            )
