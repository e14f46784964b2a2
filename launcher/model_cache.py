"""Models of the Hugging Face Hub that lie in this machine's own cache, whole; nothing is fetched."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path


def snapshot(repository: str, revisions: Sequence[str]) -> Path | None:
    """The folder of the first of these revisions that is there; None where none is."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from jobs import base_model

    for revision in revisions:
        with contextlib.suppress(LocalEntryNotFoundError, HFValidationError, OSError):
            # Without the patterns a snapshot that lacks a README would not count as whole.
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(base_model.WANTED),
                    ignore_patterns=list(base_model.UNWANTED),
                    local_files_only=True,
                )
            )
    return None
