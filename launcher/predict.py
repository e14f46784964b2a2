"""What a run's adapter says of texts without labels, asked here.

Owns where the texts come from, what is refused, and the answers until they are shown; the model runs in a process of
its own (`jobs.answers`).  However many texts there are, neither they nor the answers are ever in memory as a whole.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs import table
from jobs.errors import DataError
from launcher import home_jobs
from launcher.errors import LaunchError
from launcher.home_jobs import HomeRun
from launcher.progress import Observer
from launcher.settings import Settings

FOLDER = "predict"
"""In the application's cache: texts and answers of what is going on."""
MOST_IN_A_DOCUMENT = 10_000
FORMS = (".csv", ".jsonl")
EXAMPLE = 'launch predict RUN "a text"; launch predict RUN --file texts.csv; launch predict RUN - < texts.txt'
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where the texts are: given ones, a file (with the column they stand in), or a stream of a text a line."""

    texts: Sequence[str] = ()
    file: Path | None = None
    text_column: str = ""
    stream: IO[bytes] | None = None


@dataclass(frozen=True)
class Predicted:
    """The answers to some texts: in `file`, which is the person's own where `out` is set; `told` are their figures."""

    run_id: str
    file: Path
    out: Path | None
    told: Mapping[str, Any]

    def answers(self) -> Iterator[dict[str, Any]]:
        """Text, label, confidence, and with a threshold the decision, of one text after the other; not with `out`."""
        with self.file.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def to_json(self) -> dict[str, Any]:
        told = {"run_id": self.run_id, **self.told}
        if self.out is not None:
            return told | {"out": str(self.out)}
        return told | {"answers": list(self.answers())}


@contextlib.contextmanager
def predict(
    home: HomeRun,
    settings: Settings,
    source: Source,
    observer: Observer,
    *,
    out: Path | None = None,
    fetch_base: bool = False,
    most: int | None = None,
) -> Iterator[Predicted]:
    """The answers, for as long as the block goes on.  `most` is how many texts may be asked of without `out`.

    Raises LaunchError where the base is not on this machine, or the file of answers can't be; DataError where a text is
    none; VerificationFailed where nobody vouches for the adapter.
    """
    if out is not None and out.suffix.lower() not in FORMS:
        raise LaunchError(f"{out}: answers are written as {' or '.join(FORMS)}", hint=f"--out {out.stem}.csv")
    if home.base is None and not fetch_base:
        raise LaunchError(
            f"{home.run.run_id}: the base model is not on this machine, and answering takes it",
            hint="--base FOLDER, or --fetch-base",
        )
    place = settings.cache / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        texts = Path(folder) / "texts.jsonl"
        rows = _gather(source, texts, home)
        if out is None and most is not None and rows > most:
            raise LaunchError(f"{rows:,} texts are too many for one document", hint="--out FILE.jsonl")
        home = home_jobs.with_base(home, observer, "predict")
        answers = (out or Path(folder) / "answers.jsonl").absolute()
        keep = answers.with_name(f".{answers.name[:40]}.kept")
        told = home_jobs.predict(home, settings.local_workspace, texts, answers, keep, observer)
        yield Predicted(home.run.run_id, answers, out, told)


def _gather(source: Source, place: Path, home: HomeRun) -> int:
    """Write the texts to `place`, in the form that `jobs.answers` reads, and count them."""
    origin: Path | str = "the texts"
    texts: Iterable[str] = _checked(source.texts)
    if source.file is not None:
        origin = source.file
        if not source.file.exists():
            raise DataError(f"{source.file}: no such file", hint=EXAMPLE)
        texts = table.texts(source.file, source.text_column or home.submission.spec.text_column)
    elif source.stream is not None:
        origin = "standard input"
        copy = place.with_name("stdin.txt")
        with copy.open("wb") as file:
            while piece := source.stream.read(PIECE_BYTES):
                file.write(piece)
        texts = _named(table.texts(copy), str(copy), origin)
    encode = json.JSONEncoder(ensure_ascii=False).encode
    rows = 0
    with place.open("w", encoding="utf-8", newline="\n") as file:
        for text in texts:
            rows += 1
            file.write(f'{{"text": {encode(text)}}}\n')
    if not rows:
        raise DataError(f"{origin}: no texts", hint=EXAMPLE)
    return rows


def _named(texts: Iterator[str], copy: str, origin: str) -> Iterator[str]:
    """`texts`, with errors that tell where they come from instead of a copy that nobody made."""
    try:
        yield from texts
    except DataError as error:
        raise DataError(error.message.replace(copy, origin), hint=error.hint) from error


def _checked(texts: Sequence[str]) -> Iterator[str]:
    rows = table.Rows("the texts", "text", "", "text")
    for number, text in enumerate(texts, 1):
        yield rows.text_of(number, text)
