"""This terminal, lent to a host's login shell until that ends: every key goes there, every byte comes here.

The one place where text from a host reaches the terminal as it is: the person asked to be logged in there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from launcher.errors import LaunchError
from remote.ssh.host import SshHost

if TYPE_CHECKING:
    import paramiko

CHUNK_BYTES = 64 * 1024


def run(host: SshHost, argv: Sequence[str] = ()) -> int | None:
    """Exit status of the shell, or of a command, None where the connection broke before its end was known.

    Raises LaunchError without a terminal, and what connecting raises.
    """
    require_terminal(f"launch exec {host.name} -- COMMAND")
    columns, rows = shutil.get_terminal_size()
    channel = host.shell(os.environ.get("TERM") or "xterm-256color", columns, rows, argv)
    with contextlib.closing(channel), _raw_terminal(channel):
        showing = threading.Thread(target=_show, args=(channel,), daemon=True)
        showing.start()
        _type(channel, showing)
        showing.join(1)
        return channel.recv_exit_status() if channel.exit_status_ready() else None


def require_terminal(instead: str) -> None:
    """Raise LaunchError unless somebody sits here; `instead` is what to type then."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LaunchError("this needs a terminal", code="usage", hint=instead)


def _show(channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError):
        while chunk := channel.recv(CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


if sys.platform == "win32":
    import msvcrt

    # What a console's arrow keys and the like are called in the terminal over there.
    KEYS = {"H": "\x1b[A", "P": "\x1b[B", "M": "\x1b[C", "K": "\x1b[D", "G": "\x1b[H", "O": "\x1b[F", "S": "\x1b[3~"}

    @contextlib.contextmanager
    def _raw_terminal(channel: paramiko.Channel) -> Iterator[None]:
        os.system("")  # switches the console to understanding escape sequences
        yield

    def _type(channel: paramiko.Channel, showing: threading.Thread) -> None:
        while showing.is_alive():
            if not msvcrt.kbhit():
                showing.join(0.02)
                continue
            key = msvcrt.getwch()
            text = KEYS.get(msvcrt.getwch(), "") if key in "\0\xe0" else key
            with contextlib.suppress(OSError, EOFError):
                channel.sendall(text.encode())

else:
    import select
    import signal
    import termios
    import tty

    @contextlib.contextmanager
    def _raw_terminal(channel: paramiko.Channel) -> Iterator[None]:
        """Every key as it is, Ctrl-C too; the terminal is given back whatever happens."""

        def resize(number: int, frame: object) -> None:
            columns, rows = shutil.get_terminal_size()
            with contextlib.suppress(OSError, EOFError):
                channel.resize_pty(columns, rows)

        stdin = sys.stdin.fileno()
        before, handler = termios.tcgetattr(stdin), signal.signal(signal.SIGWINCH, resize)
        try:
            tty.setraw(stdin)
            yield
        finally:
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)
            signal.signal(signal.SIGWINCH, handler)

    def _type(channel: paramiko.Channel, showing: threading.Thread) -> None:
        stdin = sys.stdin.fileno()
        while showing.is_alive():
            if not select.select([stdin], [], [], 0.1)[0]:
                continue
            typed = os.read(stdin, CHUNK_BYTES)
            try:
                channel.sendall(typed) if typed else channel.shutdown_write()
            except (OSError, EOFError):
                return
            if not typed:
                showing.join()
