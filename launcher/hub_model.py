"""A base model of the Hugging Face Hub for this machine: in its cache, fetched into it, or only looked at."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.progress import Note, Observer

if TYPE_CHECKING:
    from jobs.base_tensors import BaseTensors


@dataclass(frozen=True)
class HubModel:
    """A repository, and the revisions of it that will do, the best one first."""

    repository: str
    revisions: tuple[str, ...]

    def cached(self) -> Path | None:
        """The folder of the first revision that lies whole in this machine's cache; nothing is fetched."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        from jobs import base_model

        for revision in self.revisions:
            with contextlib.suppress(LocalEntryNotFoundError, HFValidationError, OSError):
                # Without the patterns a snapshot that lacks a README would not count as whole.
                return Path(
                    snapshot_download(
                        self.repository,
                        revision=revision,
                        allow_patterns=list(base_model.WANTED),
                        ignore_patterns=list(base_model.UNWANTED),
                        local_files_only=True,
                    )
                )
        return None

    def fetch(self, observer: Observer) -> Path:
        """The folder of the best revision, fetched into the cache and compared with what the Hub lists.

        Raises JobError, as `tensors` does.
        """
        from jobs import base_model, hub

        with _told(observer):
            return hub.snapshot(
                self.repository,
                self.revisions[0],
                wanted=base_model.WANTED,
                unwanted=base_model.UNWANTED,
                token=_own_token(),
            ).folder

    def missing_bytes(self) -> int:
        """How much `fetch` would download.  Raises JobError, as `tensors` does."""
        from jobs import base_model, hub

        return hub.missing_bytes(
            self.repository,
            self.revisions[0],
            wanted=base_model.WANTED,
            unwanted=base_model.UNWANTED,
            token=_own_token(),
        )

    def tensors(self) -> BaseTensors:
        """Shapes and hashes of the best revision's weights, for some kilobytes."""
        from jobs import base_tensors

        return base_tensors.of_hub(self.repository, self.revisions[0], token=_own_token())


def is_name(text: str) -> bool:
    """Whether `text` could name a repository of the Hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def _own_token() -> str | bool:
    """The token of whoever sits here; False where nobody is logged in."""
    from launcher.hub_repository import known_token

    return known_token() or False


@contextlib.contextmanager
def _told(observer: Observer) -> Iterator[None]:
    """What would be lines of a run's log become notes."""

    class Lines(io.TextIOBase):
        def write(self, text: str) -> int:
            for line in filter(None, text.splitlines()):  # `print` writes the line's end by itself
                observer(Note(line))
            return len(text)

    with contextlib.redirect_stdout(Lines()):
        yield
