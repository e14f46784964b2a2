"""Where the base model's files lie: a folder that is here, or a download from the Hugging Face Hub.

Owns which files of a repository are wanted (never code, never pickles) and what a failed download means in plain words.
"""

from __future__ import annotations

from pathlib import Path

from jobs.errors import DataError, JobError
from jobs.manifest import sha256_of

WANTED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.tiktoken",
)
PUSH_IT = "download it where you are logged in to the Hub, and push that: model_name_or_path: FOLDER"
UNWANTED = ("*/*", "consolidated*", "*.py")


def locate(name_or_path: str, revision: str, *, pushed: Path | None) -> Path:
    """The folder with the base's config, tokenizer and safetensors weights.

    A `pushed` folder wins, then an existing folder, then the Hub (its cache first).  Raises DataError when there is no
    such model, revision or access, JobError when the Hub can't be reached.
    """
    if pushed is not None:
        return _complete(pushed)
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return _complete(folder)
    return _complete(_download(name_or_path, revision))


def weight_files(folder: Path) -> dict[str, str]:
    """sha256 of each of the base's safetensors files, by name: what tells one base from another."""
    return {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}


def _complete(folder: Path) -> Path:
    """`folder`, if a model can be loaded from it without running code.  Raises DataError."""
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json, so not a model", hint="model_name_or_path: a Hub id, or a folder")
    if not any(folder.glob("*.safetensors")):
        raise DataError(
            f"{folder}: no safetensors weights; pickled weights are not loaded because loading them can run code",
            hint="choose a model, or a revision of it, that has *.safetensors files",
        )
    return folder


def _download(repository: str, revision: str) -> Path:
    """The snapshot of a Hub repository in the local cache, fetched if need be.  Raises DataError, JobError."""
    import httpx2
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # bars redraw their line; this goes to a log file
    endpoint = constants.ENDPOINT
    print(f"base model {repository} ({revision}) from {endpoint}", flush=True)
    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
            )
        )
    except HFValidationError as error:
        raise DataError(f"{repository}: neither a folder here nor a Hub id (owner/name)") from error
    except GatedRepoError as error:
        raise DataError(
            f"{repository}: gated; its owner has to grant access, and no token is sent to a host",
            hint=f"accept the terms at {endpoint}/{repository}, then {PUSH_IT}",
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{repository}: no such model on {endpoint}, or a private one",
            hint=f"check the spelling; for a private model: {PUSH_IT}",
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{repository}: no revision {revision!r} on {endpoint}", hint="model_revision: main") from error
    except (LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise _unreachable(repository, endpoint, error) from error


def _unreachable(repository: str, endpoint: str, error: Exception) -> JobError:
    reason = " ".join(str(error.__cause__ or error).split())[:300]
    return JobError(
        f"{repository}: {endpoint} can't be reached, and the model is not whole in the cache ({reason})",
        hint="set HF_ENDPOINT to a mirror (with HF_HUB_DISABLE_XET=1), or push the model: model_name_or_path: FOLDER",
    )
