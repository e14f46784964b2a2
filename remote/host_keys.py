"""known_hosts: which key a host showed before, and adding one that a person vouched for."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import RemoteError

if TYPE_CHECKING:
    import paramiko


def default_file() -> Path:
    """The file that `ssh` itself uses."""
    return Path.home() / ".ssh" / "known_hosts"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` shows it: SHA256 in base64 without padding."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return f"{key.get_name()} SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"


def how_to_forget(path: Path, host: str, port: int) -> str:
    """The command that takes a host's old key out of `path`."""
    file = "" if path == default_file() else f" -f {shlex.quote(str(path))}"
    return f"ssh-keygen{file} -R {shlex.quote(host if port == 22 else f'[{host}]:{port}')}"


def add(path: Path, name: str, key: paramiko.PKey) -> None:
    """Append one line for `name` (`host`, or `[host]:port`).  Raises RemoteError where it can't be written."""
    line = f"{name} {key.get_name()} {key.get_base64()}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        # A last line without its end would swallow ours.
        separator = b"" if not before or before.endswith(b"\n") else b"\n"
        with path.open("ab") as file:
            file.write(separator + line.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RemoteError(f"{path} can't be written: {error.strerror}") from error
