"""Runs one command on a host for a person or a script: streamed through, or collected."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from launcher.untrusted import clean
from remote.host import Host

CHUNK_BYTES = 64 * 1024
# A carriage return at the very end may be half of a line's end: it waits for what follows.
LINE_END = re.compile(r"(\r\n|\n|\r(?!$))")
DAY_S = 24 * 3600
COLLECTED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Executed:
    """How a command ended and what it said, in text that is safe to show."""

    exit_status: int
    stdout: str
    stderr: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def collected(host: Host, argv: Sequence[str]) -> Executed:
    """Run it to its end, without input; at most 64 MiB of output, of stderr the end."""
    done = host.run(argv, timeout_s=DAY_S, stdout_limit_bytes=COLLECTED_BYTES)
    said = (clean(stream.decode("utf-8", "replace")) for stream in (done.stdout, done.stderr))
    return Executed(done.exit_status, *said)


def passed_through(host: Host, argv: Sequence[str]) -> int:
    """Exit status of the command; stdin, stdout and stderr are this process's, byte for byte.

    Only what goes to a terminal is cleaned: text from a host may not move the cursor.
    """
    stdin = iter(()) if sys.stdin is None or sys.stdin.isatty() else _stdin()
    to_stdout, to_stderr = _Sink(sys.stdout), _Sink(sys.stderr)
    with host.start(argv, stdin=stdin, on_stderr=to_stderr.write) as process:
        for chunk in process.chunks():
            to_stdout.write(chunk)
        status = process.wait()
    for sink in (to_stdout, to_stderr):
        sink.end()
    return status


class _Sink:
    """One of our output streams.  To a terminal only whole lines go, so that no escape sequence slips through in two.

    A lone carriage return ends one too, and stays: a progress bar may write over its own line, and nothing else.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if stream.isatty() else None
        self._rest = ""

    def write(self, chunk: bytes) -> None:
        if self._decoder is None:
            self._stream.buffer.write(chunk)  # type: ignore[attr-defined]
        else:
            *lines, self._rest = LINE_END.split(self._rest + self._decoder.decode(chunk))
            for line, end in zip(lines[::2], lines[1::2], strict=True):
                self._stream.write(clean(line) + end)
        self._stream.flush()

    def end(self) -> None:
        """Show what no line end followed."""
        self._stream.write(clean(self._rest))
        self._stream.flush()


def _stdin() -> Iterator[bytes]:
    # Not through sys.stdin: a thread that waits in its lock when the command is over would abort the interpreter.
    while chunk := os.read(sys.stdin.fileno(), CHUNK_BYTES):
        yield chunk
