"""A model repository of the Hugging Face Hub as a folder here: a snapshot in the library's own cache.

Owns the way from a branch or tag to verified files, and what a failure on it means in plain words; which files are
wanted is not its business.  Addresses, sessions, locks and the cache's layout are the library's, so that every other
program finds what was fetched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from filelock import Timeout
from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import _create_symlink, repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock, build_hf_headers, filter_repo_objects  # type: ignore[attr-defined]
from huggingface_hub.utils.tqdm import disable_progress_bars

from jobs import atomic
from jobs.blob import Blob, download, first_bytes, is_whole, partial
from jobs.errors import AdapterRejected, DataError, JobError
from jobs.log_line import say

if TYPE_CHECKING:
    from jobs import safetensors_file

PUSH_IT = "download it where you are logged in to the Hub, and push that: model_name_or_path: FOLDER"
USUAL_HEADER_BYTES = 100_000
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Snapshot:
    """A repository's wanted files as of one commit; `sha256` of those that were compared with what the Hub lists."""

    folder: Path
    commit: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Weights:
    """The headers of a repository's safetensors files as of one commit, and what the Hub lists as their sha256."""

    commit: str
    headers: tuple[safetensors_file.Header, ...]
    sha256: dict[str, str]


def snapshot(
    repository: str, revision: str, *, wanted: Sequence[str], unwanted: Sequence[str], token: str | bool | None = None
) -> Snapshot:
    """The files of a repository whose names match `wanted` and not `unwanted`; only what the cache lacks is fetched.

    Where the Hub does not answer, a snapshot that is whole in the cache will do.  `token` is that of this run's
    environment where it is not given.  Raises DataError when there is no such model, revision or access, JobError when
    the Hub can't be reached, sends something else, or the disk is full.
    """
    if Path(revision).is_absolute() or ".." in Path(revision).parts:  # the cache has a file of that name for each
        raise DataError(f"{repository}: {revision!r:.100} is no revision", hint="model_revision: main")
    token = _token() if token is None else token
    disable_progress_bars()  # bars redraw their line; this goes to a log file
    say(f"base model {repository} ({revision}) from {constants.ENDPOINT}")
    with _in_words(repository, revision, token):
        return _Repository(repository, token, list(wanted), list(unwanted)).snapshot(revision)


def missing_bytes(
    repository: str, revision: str, *, wanted: Sequence[str], unwanted: Sequence[str], token: str | bool | None = None
) -> int:
    """How many bytes `snapshot` would fetch; the Hub is asked, nothing is fetched.  Raises what `snapshot` does."""
    token = _token() if token is None else token
    with _in_words(repository, revision, token):
        asked = _Repository(repository, token, list(wanted), list(unwanted))
        return sum(blob.size_bytes for blob in asked.absent(*asked.listed(revision)))


def weights(repository: str, revision: str, *, token: str | bool | None = None) -> Weights:
    """What a repository's weights look like, by ranged requests: some kilobytes in place of gigabytes.

    Raises what `snapshot` does, and AdapterRejected for files that are not what they should be.
    """
    token = _token() if token is None else token
    with _in_words(repository, revision, token):
        commit, blobs = _Repository(repository, token, ["*.safetensors"], ["*/*", "consolidated*"]).listed(revision)
        headers = tuple(_header(repository, commit, blob, token) for blob in blobs)
    if not headers:
        raise DataError(f"{repository}: no safetensors weights", hint="choose a revision that has *.safetensors files")
    return Weights(commit, headers, {blob.name: blob.digest for blob in blobs if blob.is_sha256})


def _header(repository: str, commit: str, blob: Blob, token: str | bool) -> safetensors_file.Header:
    from jobs import safetensors_file  # brings numpy along, which a fetch on a host of little memory does without

    url, asked = hf_hub_url(repository, blob.name, revision=commit), build_hf_headers(token=token)
    start = first_bytes(url, asked, USUAL_HEADER_BYTES)
    length = safetensors_file.header_length(start, blob.size_bytes)
    if isinstance(length, str):
        raise AdapterRejected(f"{repository}: {blob.name}: {length}")
    if 8 + length > len(start):
        start = first_bytes(url, asked, 8 + length)
    return safetensors_file.parse_header(Path(blob.name), start[: 8 + length], blob.size_bytes)


@contextlib.contextmanager
def _in_words(repository: str, revision: str, token: str | bool) -> Iterator[None]:
    """What goes wrong with a repository, as DataError and JobError."""
    endpoint = constants.ENDPOINT
    try:
        yield
    except HFValidationError as error:
        raise DataError(f"{repository}: neither a folder here nor a Hub id (owner/name)") from error
    except GatedRepoError as error:
        raise _gated(repository, token) from error
    except RepositoryNotFoundError as error:
        whose = "a private one that this HF_TOKEN does not open" if token else "a private one"
        raise DataError(
            f"{repository}: no such model on {endpoint}, or {whose}",
            hint=f"check the spelling; for a private model: {PUSH_IT}",
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{repository}: no revision {revision!r} on {endpoint}", hint="model_revision: main") from error
    except HfHubHTTPError as error:
        if token and error.response.status_code in (401, 403):
            raise DataError(
                f"{repository}: {endpoint} refuses this HF_TOKEN ({error.response.status_code})",
                hint="make a token that may read this model, or set none for a public one",
            ) from error
        raise _unreachable(repository, error) from error
    except (LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise _unreachable(repository, error) from error
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise _unreachable(repository, error) from error
        if error.errno in FULL:
            raise _full(repository, error) from error
        raise JobError(f"{repository}: the cache {constants.HF_HUB_CACHE} can't be used ({error})") from error


class _Repository:
    """One repository, and its folder in the cache."""

    def __init__(self, name: str, token: str | bool, wanted: list[str], unwanted: list[str]) -> None:
        self.name, self.token, self.wanted, self.unwanted = name, token, wanted, unwanted
        cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
        folder = repo_folder_name(repo_id=name, repo_type="model")
        self.folder, self.locks = cache / folder, cache / ".locks" / folder

    def snapshot(self, revision: str) -> Snapshot:
        try:
            commit, blobs = self.listed(revision)
        except RevisionNotFoundError:
            raise
        except (httpx2.HTTPError, OSError) as error:
            return self.cached(revision, error)
        self.keep(commit, blobs)
        if revision != commit:
            with contextlib.suppress(OSError):  # a cache for reading only
                atomic.write_text(self.folder / "refs" / revision, commit)
        # The library finds every file in place.  It notes the list of files, by which it knows when it is offline that
        # the snapshot is whole.
        folder = self.by_the_library(commit)
        return Snapshot(folder, commit, {blob.name: blob.digest for blob in blobs if blob.is_sha256})

    def listed(self, revision: str) -> tuple[str, list[Blob]]:
        """The commit that `revision` is now, and the wanted files in it."""
        api = HfApi(token=self.token)
        try:
            commit = api.model_info(self.name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT).sha
            files = [file for file in api.list_repo_tree(self.name, revision=commit) if isinstance(file, RepoFile)]
        except (HFValidationError, httpx2.HTTPError):
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # A portal that wants a login, or HF_ENDPOINT is the address of something else.
            raise ConnectionError(f"that is not the answer of a Hub: {type(error).__name__}") from None
        if not commit or not re.fullmatch("[0-9a-f]{40}", commit):
            raise ConnectionError(f"the Hub names no commit for {revision!r}: {commit!r:.80}")
        chosen = filter_repo_objects(
            files, allow_patterns=self.wanted, ignore_patterns=self.unwanted, key=lambda file: file.path
        )
        return commit, [
            Blob(file.path, file.lfs.size, file.lfs.sha256) if file.lfs else Blob(file.path, file.size, file.blob_id)
            for file in chosen
        ]

    def cached(self, revision: str, why: Exception) -> Snapshot:
        """What the cache holds of `revision`.  Raises `why` if that is not a whole snapshot."""
        try:
            folder = self.by_the_library(revision, local_files_only=True)
        except LocalEntryNotFoundError:
            raise why from None
        say(f"{constants.ENDPOINT} gives no answer ({type(why).__name__}); the model is whole in the cache")
        return Snapshot(folder, folder.name, {})

    def by_the_library(self, revision: str, *, local_files_only: bool = False) -> Path:
        """The snapshot's folder."""
        return Path(
            snapshot_download(
                self.name,
                revision=revision,
                allow_patterns=self.wanted,
                ignore_patterns=self.unwanted,
                token=self.token,
                local_files_only=local_files_only,
            )
        )

    def keep(self, commit: str, blobs: list[Blob]) -> None:
        """Have every blob in the cache, under its name in the snapshot."""
        files = self.folder / "snapshots" / commit
        absent = self.absent(commit, blobs)
        if not absent:
            return
        for folder in (self.folder / "blobs", files, self.locks):
            folder.mkdir(parents=True, exist_ok=True)
        self.make_sure_of_space(absent)
        for blob in absent:
            place = self.folder / "blobs" / blob.digest
            with _locked(self.locks / f"{blob.digest}.lock", blob):
                if not is_whole(place, blob):
                    place.unlink(missing_ok=True)
                    url = hf_hub_url(self.name, blob.name, revision=commit)
                    download(blob, url, build_hf_headers(token=self.token), place)
                _create_symlink(str(place), str(files / blob.name), new_blob=True)

    def absent(self, commit: str, blobs: list[Blob]) -> list[Blob]:
        """Those that the snapshot of `commit` lacks."""
        files = self.folder / "snapshots" / commit
        return [blob for blob in blobs if not is_whole(files / blob.name, blob)]

    def make_sure_of_space(self, absent: list[Blob]) -> None:
        """Raises OSError, before the first byte, when the disk can't take what is absent."""
        blobs = self.folder / "blobs"
        here = sum(
            file.stat().st_size
            for blob in absent
            for file in (partial(blobs / blob.digest), blobs / blob.digest)
            if file.is_file()
        )
        needed, free = sum(blob.size_bytes for blob in absent) - here, shutil.disk_usage(blobs).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:,.1f} MB are to come, {free / 1e6:,.1f} MB are free")


@contextlib.contextmanager
def _locked(path: Path, blob: Blob) -> Iterator[None]:
    """The library's own lock on a blob, so that one process downloads it and the others wait."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(path, timeout=1))
        except Timeout:
            say(f"{blob.name}: another process fetches it, waiting for that")
            held.enter_context(WeakFileLock(path))
        yield


def _token() -> str | bool:
    """The token of this run's environment; False, unlike None, keeps the library from that of the host's login.

    Raises JobError for what can't be sent, before an error of some library can quote it.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and not re.fullmatch(r"[!-~]+", token):
        raise JobError("HF_TOKEN: not a token; it holds spaces or characters beyond ASCII", hint="copy it once more")
    return token or False


def _gated(repository: str, token: str | bool) -> DataError:
    page = f"{constants.ENDPOINT}/{repository}"
    if token:
        return DataError(
            f"{repository}: gated; its owner has to grant access to the account of this HF_TOKEN",
            hint=f"accept the terms at {page} as the account of the token, and let the token read gated repositories",
        )
    return DataError(
        f"{repository}: gated; its owner has to grant access, and no token is sent unless HF_TOKEN is set for the run",
        hint=f"accept the terms at {page}, then {PUSH_IT}",
    )


def _unreachable(repository: str, error: Exception) -> JobError:
    reason = " ".join(str(error.__cause__ or error).split())[:300]
    return JobError(
        f"{repository}: {constants.ENDPOINT} can't be reached, and the model is not whole in the cache ({reason})",
        hint="set HF_ENDPOINT to a mirror (with HF_HUB_DISABLE_XET=1), or push the model: model_name_or_path: FOLDER",
    )


def _full(repository: str, error: OSError) -> JobError:
    return JobError(
        f"{repository}: no space for it in {constants.HF_HUB_CACHE} ({error.strerror})",
        hint="free some on the host (`launch clean HOST`), or set HF_HOME there to a folder on a larger disk; "
        "what came is kept",
    )
