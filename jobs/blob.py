"""One file of the Hub on its way to its place in the cache: gone on with after a kill, checked before it is named.

huggingface_hub 2.4 gives each download a random file name, and deletes the file when the download fails: cut off at
90 %, it begins again at zero.  Knows the bytes, their digest and where they go; not what a repository is.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff  # type: ignore[attr-defined]

from jobs.errors import JobError
from jobs.log_line import say

TRIES = 5
PROGRESS_S = 10.0
READ_BYTES = 1024 * 1024
LONG_TO_READ_BYTES = 500_000_000
LOST = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)


@dataclass(frozen=True)
class Blob:
    """A file as the Hub lists it; `digest` is the sha256 of an LFS file, git's sha1 of a small one."""

    name: str
    size_bytes: int
    digest: str

    def __post_init__(self) -> None:
        # It names a file here, whoever wrote the list.
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.digest):
            raise JobError(f"{self.name}: the Hub lists neither a sha256 nor a git sha1 for it: {self.digest!r:.80}")

    @property
    def is_sha256(self) -> bool:
        return len(self.digest) == 64

    def new_hash(self) -> Any:
        if self.is_sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)


def is_whole(path: Path, blob: Blob) -> bool:
    """Whether the file at `path` is this blob, by its digest."""
    if not path.is_file() or path.stat().st_size != blob.size_bytes:
        return False
    if blob.size_bytes >= LONG_TO_READ_BYTES:
        say(f"{blob.name}: is here, comparing {_mb(blob.size_bytes)} MB with what the Hub lists")
    with path.open("rb") as file:
        return Part(blob, file).digest == blob.digest


def partial(place: Path) -> Path:
    """Where a blob grows that is to be at `place`."""
    return place.with_name(f"{place.name}.incomplete")


def download(blob: Blob, url: str, headers: Mapping[str, str], place: Path) -> None:
    """Put the blob at `place`; bytes that an earlier process left beside it are not fetched again.

    Raises JobError for content that is not what the Hub lists, OSError and httpx2.HTTPError as they come: what was
    received stays for the next try.
    """
    growing = partial(place)
    if growing.is_file() and growing.stat().st_size > blob.size_bytes:
        growing.unlink()
    with open(growing, "r+b", opener=_create) as file:
        part = Part(blob, file)
        progress = Progress(blob, part.have_bytes)
        tries, ended = 0, False
        while part.have_bytes < blob.size_bytes and not ended:
            before = part.have_bytes
            try:
                ended = _receive(part, url, headers, progress)
                if part.have_bytes == before and not ended:
                    raise httpx2.RemoteProtocolError("the answer held no new bytes")
            except LOST as error:
                tries = 1 if part.have_bytes > before else tries + 1
                if tries > TRIES:
                    raise
                say(f"{blob.name}: lost the connection at {_mb(part.have_bytes)} MB ({type(error).__name__}), going on")
                time.sleep(min(8, 2 ** (tries - 1)))
        file.flush()
        os.fsync(file.fileno())
    if part.have_bytes != blob.size_bytes or part.digest != blob.digest:
        growing.unlink()
        raise JobError(
            f"{blob.name}: what came from {constants.ENDPOINT} is not what the Hub lists "
            f"({part.have_bytes:,} bytes with {part.digest}, should be {blob.size_bytes:,} with {blob.digest})",
            hint="start the run again, the file is fetched anew then; if that does not help, another HF_ENDPOINT",
        )
    growing.replace(place)
    progress.done()


def first_bytes(url: str, headers: Mapping[str, str], size_bytes: int) -> bytes:
    """What a file on the Hub starts with; no more is taken in, also from a server that knows no ranges.

    Raises httpx2.HTTPError and huggingface_hub's errors.
    """
    asked = {**headers, "Accept-Encoding": "identity", "Range": f"bytes=0-{size_bytes - 1}"}
    taken = bytearray()
    timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with http_stream_backoff("GET", url, headers=asked, timeout=timeout_s, max_retries=2) as response:
        hf_raise_for_status(response)
        for piece in response.iter_bytes():
            taken += piece
            if len(taken) >= size_bytes:
                break
    return bytes(taken[:size_bytes])


class Part:
    """The bytes of a blob that are here, and the hash of exactly these."""

    def __init__(self, blob: Blob, file: BinaryIO) -> None:
        self.blob, self._file = blob, file
        self.restart()
        while piece := file.read(READ_BYTES):
            self._count(piece)

    @property
    def digest(self) -> str:
        return str(self._hash.hexdigest())

    def restart(self) -> None:
        """Begin at the first byte.  Without truncating: where locks don't work, somebody else may write here too."""
        self._file.seek(0)
        self._hash, self.have_bytes = self.blob.new_hash(), 0

    def take(self, piece: bytes) -> None:
        """Write and hash what follows; at its own place, so that two writers write the same bytes twice at worst."""
        self._file.write(piece)
        self._count(piece)

    def _count(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.have_bytes += len(piece)


class Progress:
    """A line every 10 s, and one when the file is whole."""

    def __init__(self, blob: Blob, have_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._blob, self._clock = blob, clock
        self._received = self._received_then = 0
        self._start = self._then = clock()
        if have_bytes:
            say(f"{blob.name}: {_mb(have_bytes)} of {_mb(blob.size_bytes)} MB are here already, going on")

    def received(self, size_bytes: int, have_bytes: int) -> None:
        """So many more bytes came, which makes so many."""
        self._received += size_bytes
        now = self._clock()
        if (passed_s := now - self._then) >= PROGRESS_S:
            speed = (self._received - self._received_then) / passed_s
            say(f"{self._blob.name}: {_mb(have_bytes)} of {_mb(self._blob.size_bytes)} MB, {_mb(speed)} MB/s")
            self._then, self._received_then = now, self._received

    def done(self) -> None:
        passed_s = max(self._clock() - self._start, 0.001)
        speed = f"{_mb(self._received)} MB in {passed_s:.0f} s, {_mb(self._received / passed_s)} MB/s"
        say(f"{self._blob.name}: whole and as listed, {_mb(self._blob.size_bytes)} MB ({speed})")


def _receive(part: Part, url: str, headers: Mapping[str, str], progress: Progress) -> bool:
    """Take in what one answer holds of the rest; whether the file ends there.  Raises httpx2.HTTPError."""
    # Compressed, a range would be one of the compressed bytes.
    asked = {**headers, "Accept-Encoding": "identity"}
    if part.have_bytes:
        asked["Range"] = f"bytes={part.have_bytes}-"
    # Asked by its address at the Hub each time: the one it redirects to is signed, and expires.
    with http_stream_backoff(
        "GET", url, headers=asked, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, retry_on_exceptions=()
    ) as response:
        if response.status_code == 416:  # no such range
            return True
        hf_raise_for_status(response)
        if response.status_code == 200 and part.have_bytes:
            part.restart()
        for piece in response.iter_bytes():
            part.take(piece)
            progress.received(len(piece), part.have_bytes)
            if part.have_bytes > part.blob.size_bytes:
                return True
    return False


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f}"
