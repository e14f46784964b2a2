"""Text that came from a host, made safe to show: it may not move the cursor, recolour, or hide what stands there."""

from __future__ import annotations

import re

# Escape sequences first, whole, so that their visible rest ("[31m") goes too; then every other control character.
_SEQUENCES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links, clipboard
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` without escape sequences, control characters (but newline and tab) and direction overrides."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x1b" in text or "\x9b" in text:  # to look for one is many times faster than for any sequence
        text = _SEQUENCES.sub("", text)
    return _CONTROLS.sub("", text)


# What may be the beginning of a sequence that goes on in the next piece; a lone return may be one of two bytes.
_CUT = re.compile(r"(?:\x1b(?:\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|\[[0-?]*[ -/]*|[ -/]*)?|\x9b[0-?]*[ -/]*|\r)\Z")
# A terminal's own limit is of this order; what is longer would hide all that follows it.
HELD_CHARACTERS = 4096


class Cleaner:
    """`clean` for a text that comes in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._held = ""

    def clean(self, piece: str) -> str:
        """What can be shown now."""
        text, self._held = self._held + piece, ""
        may_be_cut = "\x1b" in text or "\x9b" in text or text.endswith("\r")
        if may_be_cut and (cut := _CUT.search(text, max(0, len(text) - HELD_CHARACTERS))):
            self._held, text = text[cut.start() :], text[: cut.start()]
        return clean(text)

    def rest(self) -> str:
        """What was held, when nothing more comes."""
        held, self._held = self._held, ""
        return clean(held)
