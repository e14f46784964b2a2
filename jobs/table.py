"""Texts with labels out of a file: CSV, TSV, JSONL or Parquet, or a folder of files of one of these kinds.

Owns what is readable and says where a file is not, by line and column; knows nothing of splits and models.  The
project's own form, which every source is brought into, is JSONL in UTF-8 with the keys `text` and `label`.
"""

from __future__ import annotations

import csv
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs import text_encoding
from jobs.errors import DataError
from jobs.label import INVISIBLE, label_of

TEXT, LABEL = "text", "label"
"""The columns of the project's own form."""
SUFFIXES = {
    ".csv": "CSV", ".tsv": "TSV", ".tab": "TSV", ".jsonl": "JSONL", ".ndjson": "JSONL", ".json": "JSONL",
    ".parquet": "Parquet",
}  # fmt: skip
PLAIN = ".txt"
"""What holds texts only."""
LARGEST_FIELD = 2**31 - 1
"""Characters in one field; the csv module's own limit of 131,072 is shorter than some documents."""
UTF_8 = text_encoding.UTF_8.title
Cells = Iterator[tuple[int, tuple[Any, ...]]]
"""For each row of a file the line it begins in, and what stands in the columns that were asked for."""


@dataclass(frozen=True)
class Table:
    """N texts and their N labels, in the order of the file; texts may be empty, labels are not."""

    texts: list[str]
    labels: list[str]
    encoding: str = UTF_8

    def __len__(self) -> int:
        return len(self.texts)


def read(path: Path, text_column: str = TEXT, label_column: str = LABEL) -> Table:
    """The rows of a file, or of all files in a folder, one after the other.  Raises DataError.

    The kind is told by the suffix.  A missing text is an empty one, a missing label an error.
    """
    return joined([_read_file(file, text_column, label_column) for file in files_of(path)])


def texts(path: Path, text_column: str = TEXT) -> Iterator[str]:
    """The texts of a file, or of all files in a folder, as they are read: no label is looked for, no row is held.

    Beside the kinds that `read` takes, of a .txt every line is a text, also an empty one.  Raises DataError, on the way
    where that is what has to be found out.
    """
    for file in [path] if path.suffix.lower() == PLAIN else files_of(path):
        yield from _texts(file, text_column)


def joined(tables: Sequence[Table]) -> Table:
    """All rows, one table after the other."""
    if len(tables) == 1:
        return tables[0]
    return Table(
        [text for table in tables for text in table.texts],
        [label for table in tables for label in table.labels],
        ", ".join(sorted({table.encoding for table in tables})),
    )


def files_of(path: Path) -> list[Path]:
    """The data files that a path stands for: itself, or those in the folder, sorted by name.  Raises DataError.

    Folders in the folder are not entered, and files of other kinds (a README) and hidden ones are left out.
    """
    if not path.is_dir():
        _kind(path)
        return [path]
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    files = [file for file in inside if file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "_"))]
    files = [file for file in files if file.is_file()]
    kinds = sorted({SUFFIXES[file.suffix.lower()] for file in files})
    if not files:
        folders = [file.name for file in inside if file.is_dir()]
        raise DataError(
            f"{path}: no data file in this folder" + (f", only folders: {listed(folders)}" if folders else ""),
            hint=f"files of one kind: {', '.join(SUFFIXES)}; folders in it are not entered",
        )
    if len(kinds) > 1:
        raise DataError(f"{path}: files of several kinds: {', '.join(kinds)}", hint="name one file, or sort them")
    return files


def lines(table: Table) -> Iterator[bytes]:
    """The project's own form: a JSON object a line, UTF-8, the same bytes for the same rows wherever they came from."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for text, label in zip(table.texts, table.labels, strict=True):
        yield f'{{"text": {encode(text)}, "label": {encode(label)}}}\n'.encode()


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names with commas between them, the rest as a number."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def position(origin: Path | str, columns: Sequence[str], column: str, hint: str = "") -> int:
    """Where `column` stands among the columns.  Raises DataError with the columns there are."""
    found = [index for index, name in enumerate(columns) if name == column]
    if len(found) == 1:
        return found[0]
    what = f"no column {column!r}" if not found else f"column {column!r} stands there {len(found)} times"
    near = difflib.get_close_matches(column.casefold(), {name.casefold(): name for name in columns}, n=1)
    meant = next((name for name in columns if near and name.casefold() == near[0]), "")
    raise DataError(
        f"{origin}: {what}; columns: {listed(columns) or 'none'}" + (f"; did you mean {meant!r}?" if meant else ""),
        hint=hint or "set text_column and label_column in the spec",
    )


class Rows:
    """Collects the rows of one file and makes every cell what it must be; `unit` is what a row is counted in."""

    def __init__(self, origin: str, text_column: str, label_column: str, unit: str = "line") -> None:
        self._origin, self._unit = origin, unit
        self._text_column, self._label_column = text_column, label_column
        self._labels: dict[tuple[type, Any], str] = {}
        self.texts: list[str] = []
        self.labels: list[str] = []

    def add(self, number: int, text: Any, label: Any) -> None:
        """One row.  Raises DataError naming it where its text is no text, or its label is none."""
        text = self.text_of(number, text)
        try:
            name = self._labels.get((type(label), label))
        except TypeError:  # a list or an object can't be looked up
            name = None
        if name is None:
            name = self._labels[type(label), label] = self._as_label(number, label)
        self.texts.append(text)
        self.labels.append(name)

    def text_of(self, number: int, value: Any) -> str:
        """The text in a cell, "" where there is none.  Raises DataError naming the row where it is no text."""
        text: str = value if isinstance(value, str) else self._as_text(number, value)
        if not text.isascii() or "\0" in text:
            self._check_characters(number, self._text_column, text)
        return text

    def table(self, encoding: str = UTF_8) -> Table:
        """What was collected.  Raises DataError where that is nothing."""
        if not self.texts:
            raise DataError(f"{self._origin}: no rows")
        return Table(self.texts, self.labels, encoding)

    def fault(self, number: int, what: str, hint: str = "") -> DataError:
        """An error in a row."""
        return _fault(self._origin, number, what, hint, self._unit)

    def _as_text(self, number: int, value: Any) -> str:
        if value is None or value != value:  # NaN is what pandas has for none
            return ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return label_of(value)  # a review "666", that a spreadsheet took for a number
        raise self.fault(
            number,
            f"column {self._text_column!r} holds {_named(value)}, not text",
            "text_column names the column of the texts",
        )

    def _as_label(self, number: int, value: Any) -> str:
        try:
            name = label_of(value)
        except TypeError as error:
            raise self.fault(
                number, f"column {self._label_column!r} holds {_named(value)}, not a label", "one label a row"
            ) from error
        if not name:
            raise self.fault(number, f"column {self._label_column!r} is empty", "label or drop it")
        self._check_characters(number, self._label_column, name)
        return sys.intern(name)

    def _check_characters(self, number: int, column: str, text: str) -> None:
        if "\0" in text:
            raise self.fault(number, f"column {column!r}: a NUL character", "is the file damaged?")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.fault(
                number,
                f"column {column!r}: half a character (lone surrogate \\u{ord(text[error.start]):04x})",
                "an emoji was cut in two where the text was shortened: drop its rest",
            ) from error


def _read_file(path: Path, text_column: str, label_column: str) -> Table:
    kind = _kind(path)
    if kind == "Parquet":
        from jobs import parquet

        return parquet.read(path, text_column, label_column)
    encoding = text_encoding.detect(path)
    with path.open("r", encoding=encoding.codec, newline="") as file:
        rows = Rows(str(path), text_column, label_column)
        for number, (text, label) in READERS[kind](path, file, (text_column, label_column)):
            rows.add(number, text, label)
    return rows.table(encoding.title)


def _texts(path: Path, text_column: str) -> Iterator[str]:
    rows = Rows(str(path), text_column, "")
    if path.suffix.lower() != PLAIN and _kind(path) == "Parquet":
        from jobs import parquet

        for number, text in enumerate(parquet.texts(path, text_column), 1):
            yield rows.text_of(number, text)
        return
    encoding = text_encoding.detect(path)
    with path.open("r", encoding=encoding.codec, newline="") as file:
        read = _plain if path.suffix.lower() == PLAIN else READERS[_kind(path)]
        for number, (text,) in read(path, file, (text_column,)):
            yield rows.text_of(number, text)


def _fault(origin: Path | str, number: int, what: str, hint: str = "", unit: str = "line") -> DataError:
    return DataError(f"{origin}: {unit} {number}: {what}", hint=hint)


def _kind(path: Path) -> str:
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise DataError(
            f"{path}: not a kind of file that is read", hint=f"its name must end in {', '.join(SUFFIXES)}"
        ) from None


def _plain(path: Path, file: IO[str], columns: Sequence[str]) -> Cells:
    """A text a line, ended by LF, CR LF or CR."""
    for number, line in enumerate(file, 1):
        yield number, (line.removesuffix("\n").removesuffix("\r"),)


def _csv(path: Path, file: IO[str], columns: Sequence[str]) -> Cells:
    """With a header, comma-separated, quoted as RFC 4180."""
    return _separated(path, csv.reader(file, strict=True), columns, ",")


def _tsv(path: Path, file: IO[str], columns: Sequence[str]) -> Cells:
    """With a header and tabs.  Quoted as a CSV; where it can't be read so, a " is a character like any other."""
    try:
        for _ in _separated(path, _quoted(file), columns, "\t"):
            pass  # to its end, before a row is given out that could not be taken back
    except DataError as quoted:
        file.seek(0)
        plain = csv.reader(file, dialect="excel-tab", quoting=csv.QUOTE_NONE)
        try:
            yield from _separated(path, plain, columns, "\t")
        except DataError:
            raise quoted from None
        return
    file.seek(0)
    yield from _separated(path, _quoted(file), columns, "\t")


def _quoted(file: IO[str]) -> Any:
    return csv.reader(file, strict=True, dialect="excel-tab")


def _separated(path: Path, reader: Any, columns: Sequence[str], separator: str) -> Cells:
    csv.field_size_limit(LARGEST_FIELD)
    line = 1
    try:
        header = [column.strip().strip(INVISIBLE).strip() for column in next(reader, [])]
        other = next((one for one in ";\t|," if one != separator and len(header) == 1 and one in header[0]), "")
        hint = f"its fields are separated by {other!r}, not {separator!r}: save it as CSV or TSV" if other else ""
        places = [position(path, header, column, hint or _hint(columns)) for column in columns]
        line = reader.line_num + 1  # a quoted field may hold line ends, so a row begins where the last one ended
        for row in reader:
            if row and len(row) != len(header):
                raise _fault(
                    path,
                    line,
                    f"{len(row)} fields, the header has {len(header)}",
                    'put a field that holds a separator or a line end in "double quotes"',
                )
            if row:  # the csv module gives [] for a blank line
                yield line, tuple(row[place] for place in places)
            line = reader.line_num + 1
    except csv.Error as error:
        raise _fault(path, line, f"not readable from here on: {error}", 'is a " left open?') from error


def _json_lines(path: Path, file: IO[str], columns: Sequence[str]) -> Cells:
    """A JSON object a line; the keys of every one must have the columns, others do not matter."""
    decode = json.JSONDecoder().decode
    for number, line in enumerate(file, 1):  # ends at LF, CR LF or CR; U+2028 may stand in a text
        line = line.strip().strip(INVISIBLE)
        if not line:
            continue
        try:
            value = decode(line)
        except (ValueError, RecursionError) as error:
            raise _fault(path, number, f"not JSON: {error}", _json_hint(line)) from error
        if not isinstance(value, dict):
            raise _fault(path, number, f"{_named(value)}, not an object", _json_hint(line))
        for column in columns:
            if column not in value:
                try:
                    position(path, list(map(str, value)), column, _hint(columns))
                except DataError as error:
                    raise _fault(path, number, error.message.removeprefix(f"{path}: "), error.hint) from error
        yield number, tuple(value[column] for column in columns)


def _hint(columns: Sequence[str]) -> str:
    """Where a column is not there: who asks for a text alone is no spec."""
    return "" if len(columns) > 1 else "name the column of the texts: --text-column"


def _json_hint(line: str) -> str:
    if line.startswith("["):
        return "one object a line, not a list of them: jq -c '.[]' FILE.json > FILE.jsonl"
    return f'one object a line, such as {{"{TEXT}": "...", "{LABEL}": "..."}}'


def _named(value: Any) -> str:
    names: Mapping[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
    }
    return names.get(type(value), f"a {type(value).__name__}")


READERS: Mapping[str, Callable[[Path, IO[str], Sequence[str]], Cells]] = {
    "CSV": _csv,
    "TSV": _tsv,
    "JSONL": _json_lines,
}
