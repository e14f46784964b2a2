"""In which encoding a text file is written: UTF-8, UTF-16 with a byte order mark, or GBK, which is found out.

Owns what is taken for Chinese text in GB18030 (the superset of GBK and GB2312); everything else is an error that names
line and byte, because a wrong guess would train on garbage.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import DataError

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """A Python codec, and what it is called for a person."""

    codec: str
    title: str


UTF_8 = Encoding("utf-8", "UTF-8")
UTF_8_BOM = Encoding("utf-8-sig", "UTF-8 with a byte order mark")
GB18030 = Encoding("gb18030", "GBK (GB18030)")
_MARKS = (
    (codecs.BOM_UTF8, UTF_8_BOM),
    (codecs.BOM_UTF16_LE, Encoding("utf-16", "UTF-16")),
    (codecs.BOM_UTF16_BE, Encoding("utf-16", "UTF-16")),
)

# The most frequent characters of Chinese: a quarter of any text, and 2 % of one in another encoding read as GB18030.
_FREQUENT = frozenset(
    "的一是不了在有我他这中大来上个国人们说地到也子时就你那要下以为和好很得着过对没都还去会可么起多小看后天点心"
)
_FEW = 50
_LEAST_FREQUENT = 0.08
_LEAST_USUAL = 0.8


def detect(path: Path) -> Encoding:
    """The encoding of a whole file, every byte of which was decoded.  Raises DataError naming the line otherwise."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        for mark, encoding in _MARKS:
            if start.startswith(mark):
                if fault := _fault(path, encoding.codec):
                    raise DataError(f"{path}: {fault} is not {encoding.title}", hint="save the file as UTF-8")
                return encoding
        fault = _fault(path, "utf-8")
        if not fault:
            return UTF_8
        if _is_chinese(path):
            return GB18030
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    raise DataError(
        f"{path}: {fault} is not UTF-8, and the file is not Chinese text in GBK either",
        hint="save the file as UTF-8 (in Excel: 'CSV UTF-8')",
    )


def _fault(path: Path, codec: str) -> str:
    """Where the file is not of that codec, in words; "" where all of it is.  Raises DataError at a NUL character."""
    decoder = codecs.getincrementaldecoder(codec)()
    line = 1
    with path.open("rb") as file:
        while True:
            piece = file.read(PIECE_BYTES)
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                return f"line {line}: byte 0x{error.object[error.start]:02x}"
            if "\0" in text:
                line += text.count("\n", 0, text.index("\0"))
                raise DataError(f"{path}: line {line}: a NUL character", hint="is this UTF-16, or a damaged file?")
            if not piece:
                return ""
            line += text.count("\n")


def _is_chinese(path: Path) -> bool:
    """Whether all of the file decodes as GB18030, and to characters that Chinese is written with."""
    decoder = codecs.getincrementaldecoder(GB18030.codec)()
    usual = frequent = seen = 0
    with path.open("rb") as file:
        while True:
            piece = file.read(PIECE_BYTES)
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError:
                return False
            if "\0" in text:
                return False
            if seen < PIECE_BYTES:
                letters = [c for c in text if "\x7f" < c <= "\uffff"]
                seen += len(letters)
                usual += sum(map(_is_usual, letters))
                frequent += sum(c in _FREQUENT for c in letters)
            if not piece:
                break
    if not seen or usual < _LEAST_USUAL * seen:
        return False
    return seen < _FEW or frequent >= _LEAST_FREQUENT * seen


def _is_usual(character: str) -> bool:
    """A character of GB2312's first level, the 3,755 most used ones, or Chinese punctuation."""
    if "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uffef" or character in "“”‘’…—·":
        return True
    try:
        return 0xB0 <= character.encode("gb2312")[0] <= 0xD7
    except UnicodeEncodeError:
        return False
