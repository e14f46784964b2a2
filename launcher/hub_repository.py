"""One model repository of the Hugging Face Hub, to be written to: how it stands, making it, one commit.

Owns the token, and what every refusal and silence of a Hub means in plain words.  Which files go up, and whether they
may, is not its business.  Addresses and protocol are the library's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError, OIDCError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from launcher.errors import LaunchError
from launcher.hub_model import is_name

HUBS_OWN = ("https://huggingface.co", "https://hub-ci.huggingface.co")
TIMEOUT_S = httpx2.Timeout(120, connect=15)
"""The library waits for ever; a commit of large files may take a minute."""


@dataclass(frozen=True)
class Standing:
    """A repository as it is now; `head` is the commit that `main` is at."""

    is_public: bool
    head: str
    files: tuple[str, ...]


def check_name(name: str) -> None:
    """Raise LaunchError unless `name` is one that a repository of somebody can have."""
    if not is_name(name) or name.count("/") != 1:
        raise LaunchError(
            f"{name!r:.200} is no repository of the Hub", hint="owner/name: letters, digits, - _ .", code="usage"
        )


def own_token() -> str:
    """HF_TOKEN, else the token of this person's own login.  Raises LaunchError where there is none."""
    token = known_token()
    if not token:
        raise LaunchError(
            f"nobody is logged in to {constants.ENDPOINT} here",
            hint="hf auth login, or HF_TOKEN with a token that may write",
            code="authentication_failed",
        )
    return token


def known_token() -> str:
    """As `own_token`; empty where nobody is logged in.  Raises LaunchError for what is no token."""
    try:
        token = get_token() or ""
    except (OIDCError, httpx2.HTTPError, OSError) as error:
        raise LaunchError(
            f"no token for the Hub: {type(error).__name__}", hint="hf auth login", code="authentication_failed"
        ) from error
    if not re.fullmatch(r"[!-~]*", token):  # before an error of some library quotes it
        raise LaunchError(
            "HF_TOKEN: not a token; it holds spaces or characters beyond ASCII",
            hint="copy it once more",
            code="authentication_failed",
        )
    return token


class HubRepository:
    """A repository by its name, for whoever the token belongs to; nothing is asked by making one.

    Every method raises LaunchError: authentication_failed, not_found, unreachable, or error.
    """

    def __init__(self, name: str, token: str, endpoint: str = constants.ENDPOINT) -> None:
        self.name, self.endpoint = name, endpoint
        self._token, self._api = token, HfApi(endpoint=endpoint, token=token)
        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs what a server says, as it is
        get_session().timeout = TIMEOUT_S
        if endpoint not in HUBS_OWN and "HF_HUB_DISABLE_XET" not in os.environ:
            # With hf_xet installed the library sends every large file to Xet's own servers, whatever the Hub at
            # `endpoint` offers, and never falls back to LFS; a mirror has none.
            constants.HF_HUB_DISABLE_XET = True

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{self.name}"

    def look(self) -> Standing | None:
        """How it stands; None where it is not there, or not for this token."""
        with self._asking("read"):
            try:
                info = self._api.model_info(self.name)
            except RepositoryNotFoundError:
                return None
            # A Hub that does not say that it is private shows it to everybody, for all we know.
            files = tuple(sorted(file.rfilename for file in info.siblings or ()))
            return Standing(info.private is not True, info.sha or "", files)

    def make(self, *, public: bool) -> None:
        """Make it, empty.  Fails where it exists, whoever sees it."""
        with self._asking("make"):
            self._api.create_repo(self.name, private=not public)

    def commit(self, files: Mapping[str, bytes], message: str, parent: str) -> str:
        """Put all `files` there in one commit on top of `parent`, or none; the address of the commit."""
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        with self._asking("write to"):
            return self._api.create_commit(
                self.name, operations, commit_message=message, parent_commit=parent or None
            ).commit_url

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the server warns of would reach the terminal as it is
                yield
        except httpx2.InvalidURL as error:
            raise LaunchError(f"HF_ENDPOINT: no address: {self.endpoint}", hint="unset HF_ENDPOINT") from error
        except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            causes = list(_causes(error))
            refused = next((one for one in causes if isinstance(one, HfHubHTTPError)), None)
            if refused is not None:
                raise self._refused(verb, refused) from error
            lost = next((one for one in causes if isinstance(one, httpx2.HTTPError | OSError)), None)
            if lost is not None:
                raise LaunchError(
                    f"{self.endpoint} can't be reached: {self._said(lost)}",
                    hint="try again; HF_ENDPOINT names another Hub, HF_HUB_DISABLE_XET=1 keeps to its own address",
                    code="unreachable",
                ) from error
            raise LaunchError(
                f"{self.endpoint} gave no answer of a Hub: {type(error).__name__}: {self._said(error)}",
                hint="log in to this network, or correct HF_ENDPOINT",
                code="unreachable",
            ) from error

    def _refused(self, verb: str, error: HfHubHTTPError) -> LaunchError:
        """A status of the Hub's, in words.  Never the error's own text: it quotes signed addresses."""
        status = error.response.status_code
        said = self._said(error.server_message or "")
        told = f"({status}: {said})" if said else f"({status})"
        tokens = f"{self.endpoint}/settings/tokens"
        match status:
            case 401:
                what, hint = "does not accept this token", f"hf auth login, or another HF_TOKEN: {tokens}"
            case 403:
                owner = self.name.split("/")[0]
                what, hint = (
                    f"does not let this token {verb} {self.name}",
                    f"a token that may write to {owner}: {tokens}",
                )
            case 404:
                what, hint = f"has no {self.name} to {verb}", f"was it deleted or renamed?  {self.url}"
            case 409 | 412:
                what, hint = f"can't {verb} {self.name}: it exists, or was changed meanwhile", f"look at {self.url}"
            case 429:
                what, hint = "wants fewer requests", "try again in some minutes"
            case _ if status >= 500:
                what, hint = f"can't {verb} {self.name}", "try again in a minute"
            case _:
                what, hint = f"will not {verb} {self.name}", f"look at {self.url}"
        code = {401: "authentication_failed", 403: "authentication_failed", 404: "not_found"}.get(status, "")
        return LaunchError(f"{self.endpoint} {what} {told}", hint=hint, code=code)

    def _said(self, error: object) -> str:
        """The words of somebody else, on one line, without the token."""
        return " ".join(str(error).split()).replace(self._token, "[token]")[:300]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__
