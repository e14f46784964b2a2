"""Key pairs on this machine, and putting the public half onto a host so that the next login needs no password."""

from __future__ import annotations

import base64
import getpass
import os
import platform
from pathlib import Path

from remote.errors import RemoteError
from remote.host import Host
from remote.ssh.credentials import default_keys, public_blob

FRESH = "id_ed25519"
# The last word of a line that we put into authorized_keys: what a person put there stays theirs.
MARK = "launch-host-add"

# stdin: the public key's line.  The file is only ever appended to, and only by a line that is not in it.
INSTALL = r"""
umask 077
d=$HOME/.ssh f=$HOME/.ssh/authorized_keys
IFS= read -r line || exit 1
set -f; set -- $line; key=$2
mkdir -p "$d" && chmod 700 "$d" && touch "$f" && chmod 600 "$f" || exit 1
there() { grep -v '^[[:space:]]*#' "$f" | grep -qF -e "$key"; }
if there; then echo there; exit 0; fi
if [ -s "$f" ] && [ -n "$(tail -c 1 "$f")" ]; then echo >>"$f" || exit 1; fi
printf '%s\n' "$line" >>"$f" || exit 1
there && echo installed
"""


def existing() -> Path | None:
    """The first of the usual private keys whose public half is at hand."""
    return next((path for path in default_keys() if public_blob(path) or _derived(path)), None)


def public_line(path: Path) -> str:
    """The line for authorized_keys.  Raises RemoteError where it can't be had without unlocking the key."""
    if public_blob(path):
        return path.with_name(path.name + ".pub").read_text("utf-8").strip()
    if line := _derived(path):
        return f"{line} {_comment()}"
    raise RemoteError(
        f"{path}: its public half {path.name}.pub is missing", hint=f"ssh-keygen -y -f {path} > {path}.pub"
    )


def marked(line: str) -> str:
    """The line as it is installed: by its mark it is found again when it is to go."""
    return f"{line} {MARK}"


def own_keys(*more: Path) -> list[str]:
    """The public halves, in base64, of the keys on this machine that may have been installed somewhere, and `more`."""
    found = dict.fromkeys([*more, *default_keys(), *(path for path in _names(Path.home() / ".ssh") if path.is_file())])
    halves = (base64.b64encode(public_blob(path)).decode("ascii") or _derived(path).partition(" ")[2] for path in found)
    return [half for half in dict.fromkeys(halves) if half]


def fresh() -> Path:
    """A new ed25519 key without a passphrase in ~/.ssh, readable by nobody else.  Never replaces a file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder = Path.home() / ".ssh"
    path = next(one for one in _names(folder) if not one.exists() and not one.with_name(one.name + ".pub").exists())
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
        _write(path.with_name(path.name + ".pub"), f"{public} {_comment()}\n".encode(), 0o644)
    except OSError as error:
        raise RemoteError(f"no key can be made in {folder}: {error.strerror}") from error
    return path


def install(host: Host, line: str) -> bool:
    """Let the key of `line` log in to `host`; False if it could already.  Raises CommandFailed, Unreachable."""
    done = host.run(["sh", "-c", INSTALL, "sh"], stdin=line.encode("utf-8") + b"\n", stdout_limit_bytes=64 * 1024)
    said = done.check().stdout.split()[-1:]
    if said not in ([b"there"], [b"installed"]):
        raise RemoteError(
            f"{host.name}: the key could not be put into ~/.ssh/authorized_keys", hint="is the home folder's disk full?"
        )
    return said == [b"installed"]


def _names(folder: Path) -> list[Path]:
    return [folder / FRESH, *(folder / f"{FRESH}_launch{number or ''}" for number in range(100))]


def _comment() -> str:
    return f"{getpass.getuser()}@{platform.node() or 'laptop'}".replace(" ", "-")


def _derived(path: Path) -> str:
    """Type and key of an unlocked private key's public half; empty for a locked one."""
    from paramiko import PKey

    try:
        key = PKey.from_path(path)
    except Exception:  # locked, broken, of an unknown kind: not one that can be used without a question
        return ""
    return f"{key.get_name()} {key.get_base64()}"


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
