"""What a process at home prints, told apart: lines for people, and how far its model is, in lines behind a mark.

Owns the mark, which nobody else knows, and what such a line may hold.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

from launcher.progress import Inferring, LogPiece

_FIGURES = re.compile(r" ([0-9]{1,15}) ([0-9]{1,15}|-)\r?\Z")


class MarkedOutput:
    """Takes a process's output in pieces, cut anywhere; `what` is what the model is called on the screen."""

    def __init__(self, what: str) -> None:
        self.mark = f"@{secrets.token_hex(8)}"
        self._what = what
        self._held = ""
        self._at_line_start = True

    def take(self, piece: str) -> Iterator[Inferring | LogPiece]:
        """What there is to tell of the process now: figures, and everything else as it is."""
        *lines, self._held = (self._held + piece).split("\n")
        shown = ""
        for line in lines:
            figures = _FIGURES.match(line, len(self.mark)) if self._is_marked(line) else None
            if figures is None:
                shown += f"{line}\n"
            else:
                if shown:
                    yield LogPiece(shown)
                    shown = ""
                total = None if figures[2] == "-" else int(figures[2])
                yield Inferring(int(figures[1]), total, self._what)
            self._at_line_start = True
        # A line's beginning is only held where it may be one with the mark.
        if self._held and not (self._at_line_start and self.mark.startswith(self._held[: len(self.mark)])):
            shown, self._held, self._at_line_start = shown + self._held, "", False
        if shown:
            yield LogPiece(shown)

    def rest(self) -> Iterator[LogPiece]:
        """What was held, when nothing more comes."""
        held, self._held = self._held, ""
        if held:
            yield LogPiece(held)

    def _is_marked(self, line: str) -> bool:
        return self._at_line_start and line.startswith(self.mark)
