"""Which machine it is: an address is not an identity, because providers hand the same one to other machines."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from remote import failure
from remote.errors import OtherMachine
from remote.host import Host

MARKER_FILE = "box-id"
"""In `<workspace>/launch/` on the host; written once, and never changed."""
LOOK_LIMIT_BYTES = 64 * 1024

# $1: a nonce, $2: the marker's file.  Says two lines, and touches nothing.
LOOK = r"""printf '\n@launch %s\n%s\n%s\n' "$1" "$(uname -n)" "$([ ! -f "$2" ] || head -c 64 "$2" 2>/dev/null)" """


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


def look(host: Host, workspace: str) -> Identity:
    """Hostname and marker of a machine, which is only read from.  Raises what Host.run raises."""
    nonce = secrets.token_hex(8)
    argv = ["sh", "-c", LOOK, "sh", nonce, f"{workspace}/launch/{MARKER_FILE}"]
    said = host.run(argv, stdout_limit_bytes=LOOK_LIMIT_BYTES).check().stdout.decode("utf-8", "replace")
    hostname, marker, *_ = (*said.partition(f"\n@launch {nonce}\n")[2].split("\n"), "", "")
    return Identity(hostname, marker=marker)
