"""Logs in to one machine: at most three keys, then the password.  What worked is tried first the next time.

Kept in memory for as long as the process lives, so that a connection that broke is made again without a question, and
nowhere else: nothing here is written, printed or put into an error.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import AuthenticationFailed, TimedOut
from remote.ssh.config import Hop
from remote.ssh.questions import Questions
from remote.ssh.wire import within

if TYPE_CHECKING:
    import paramiko

# sshd ends a connection at the sixth refusal: three keys leave room for three passwords.
MOST_KEYS = 3
MOST_PASSWORDS = 3
AGENT_TIMEOUT_S = 5
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


class Dropped(Exception):
    """The host hung up in mid-login: a new connection goes on where this one ended."""


@dataclass(frozen=True)
class Offer:
    """A key that can be offered: `label` for people, `load` gives it (None where nobody can unlock it)."""

    label: str
    blob: bytes
    load: Callable[[], paramiko.PKey | None]

    def is_same(self, other: Offer) -> bool:
        """Labels are comments, which several keys may share; where no public half is known, it is a path."""
        return self.blob == other.blob if self.blob else self.label == other.label


class Credentials:
    """What one hop is offered.  With `keys_only` no password ever leaves this machine."""

    def __init__(self, hop: Hop, questions: Questions, *, keys_only: bool = False, is_target: bool = True) -> None:
        self._hop = hop
        self._questions = questions
        self._keys_only = keys_only
        self._is_target = is_target
        self._refused: list[Offer] = []
        self._hung_up: list[Offer] = []
        self._offered_again: list[Offer] = []
        self._troubles: dict[str, None] = {}
        self._accepted: Offer | None = None
        self._unlocked: dict[Path, paramiko.PKey] = {}
        self._agents: list[paramiko.Agent] = []
        self._password: str | None = None
        self._passwords_tried = 0
        self._allowed: tuple[str, ...] = ()
        self.used_password = False
        """Whether the last login took a password."""

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Log in, or raise AuthenticationFailed, TimedOut or Dropped.  Called by paramiko as its `auth_strategy`."""
        self.used_password = False
        try:
            if self._by_key(transport) or self._by_password(transport):
                return []
            if self._take_back() and self._by_key(transport):
                return []
        finally:
            while self._agents:
                self._agents.pop().close()
        raise AuthenticationFailed(self._in_words(), hint=self._hint())

    # -- keys

    def _by_key(self, transport: paramiko.Transport) -> bool:
        if self._accepted is not None and (key := self._accepted.load()) is not None:
            return self._answered(transport, partial(transport.auth_publickey, self._hop.user, key)) == []
        if self._password is not None:  # a login of before took it, after these keys
            return False
        for offer in self._offers():
            if len(self._refused) >= MOST_KEYS:
                self._note(f"more than {MOST_KEYS} keys are there, the others were not offered")
                break
            key = offer.load()
            if key is None:
                continue
            # Noted before the answer: a host that hangs up on it must not be offered it again.
            self._refused.append(offer)
            try:
                left = self._answered(transport, partial(transport.auth_publickey, self._hop.user, key))
            except Dropped:
                self._hung_up.append(offer)
                raise
            if left is None:
                if self._allowed and "publickey" not in self._allowed:
                    break
                continue
            self._refused.remove(offer)
            self._accepted = offer
            return left == []  # or it wants a second factor
        return False

    def _take_back(self) -> bool:
        """Whether keys are to be offered once more: a line that broke looks like a host that hung up on a key."""
        again = [offer for offer in self._hung_up if not any(map(offer.is_same, self._offered_again))]
        self._hung_up = []
        self._offered_again += again
        for offer in again:
            self._refused.remove(offer)
        return bool(again)

    def _offers(self) -> Iterator[Offer]:
        """Keys in the order of ssh: those named for this host, the agent's, the usual files; each once."""
        seen: set[bytes] = set()
        in_agent = {offer.blob: offer for offer in self._from_agent()}
        for path in self._hop.identity_files:
            blob = public_blob(path)
            offer = in_agent.get(blob) if blob else None
            yield from self._new(offer or self._from_file(path, blob), seen)
        if self._hop.identities_only and self._hop.identity_files:
            return
        if not self._hop.identities_only:
            for offer in in_agent.values():
                yield from self._new(offer, seen)
        if not self._hop.identity_files:
            for path in default_keys():
                yield from self._new(self._from_file(path, public_blob(path)), seen)

    def _new(self, offer: Offer, seen: set[bytes]) -> Iterator[Offer]:
        if any(map(offer.is_same, self._refused)) or (offer.blob and offer.blob in seen):
            return
        seen.add(offer.blob)
        yield offer

    def _from_agent(self) -> list[Offer]:
        try:
            agent = open_agent()
        except Exception as error:  # an agent may break in any way; the files and the password are still there
            self._note(f"the agent can't be asked ({error})")
            return []
        with contextlib.closing(agent):
            return [
                Offer(f"agent: {key.comment or key.get_name()}", key.asbytes(), partial(self._in_agent, key.asbytes()))
                for key in agent.get_keys()
            ]

    def _in_agent(self, blob: bytes) -> paramiko.PKey | None:
        """A key that signs for as long as this login takes."""
        with contextlib.suppress(Exception):  # it answered a moment ago; whatever it does now, other keys are left
            self._agents.append(open_agent())
            return next((key for key in self._agents[-1].get_keys() if key.asbytes() == blob), None)
        return None

    def _from_file(self, path: Path, blob: bytes) -> Offer:
        return Offer(str(path), blob, partial(self._loaded, path))

    def _loaded(self, path: Path) -> paramiko.PKey | None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from paramiko import SSHException
        from paramiko.pkey import UnknownKeyType

        if path in self._unlocked:
            return self._unlocked[path]
        passphrase, trouble = "", ""
        for tries in range(1 + MOST_PASSWORDS):
            try:
                return self._unlocked.setdefault(path, _read_key(path, passphrase.encode() or None))
            except TypeError:  # what cryptography says to a key that is locked
                trouble = "locked, and nobody unlocked it"
            except (ValueError, SSHException):
                trouble = "still locked: a wrong passphrase" if passphrase else "not a private key that can be read"
                if not passphrase:
                    break
            except OSError as error:
                trouble = error.strerror or "can't be read"
                break
            except (UnsupportedAlgorithm, UnknownKeyType):
                trouble = "a kind of key that is not known here"
                break
            passphrase = self._questions.passphrase(str(path), again=tries > 0) or ""
            if not passphrase:
                break
        if path in self._hop.identity_files and f"{path}: {trouble}" not in self._troubles:
            self._questions.tell(f"{path}: {trouble}; going on without this key")
        self._note(f"{path}: {trouble}")
        return None

    # -- passwords

    def _by_password(self, transport: paramiko.Transport) -> bool:
        if self._keys_only or not self._takes_passwords(transport):
            return transport.is_authenticated()  # a host that lets everybody in
        while self._passwords_tried < MOST_PASSWORDS:
            password = self._password
            if password is None:
                password = self._questions.password(
                    str(self._hop), again=self._passwords_tried > 0, is_target=self._is_target
                )
            if not password:
                return False
            self._password = password  # kept if the host hung up while a person was typing
            left = self._answered(transport, partial(transport.auth_password, self._hop.user, password))
            if left == []:
                self.used_password = True
                self._passwords_tried = 0
                return True
            if left:
                raise AuthenticationFailed(
                    f"{self._hop} took the password and wants a second factor ({', '.join(left)})",
                    hint="log in with a key: launch can't answer for a second factor",
                )
            self._password = None
            self._passwords_tried += 1
            if self._allowed and not set(self._allowed) & {"password", "keyboard-interactive"}:
                return False
        return False

    def _takes_passwords(self, transport: paramiko.Transport) -> bool:
        """Asked before a person is: nobody should type a password that can't be used."""
        ask = not self._allowed and self._password is None
        if ask and self._answered(transport, partial(transport.auth_none, self._hop.user)) == []:
            return False
        return not self._allowed or bool(set(self._allowed) & {"password", "keyboard-interactive"})

    # -- answers

    def _answered(self, transport: paramiko.Transport, attempt: Callable[[], list[str]]) -> list[str] | None:
        """What is still needed after an accepted attempt ([]: nothing), None after a refusal."""
        import paramiko

        try:
            left = attempt()
        except paramiko.BadAuthenticationType as error:
            self._allowed = tuple(error.allowed_types)
            return None
        except paramiko.AuthenticationException as error:
            if str(error) == "Authentication timeout.":
                raise TimedOut(f"{self._hop}: no answer to the login") from error
            if not transport.is_active():
                raise Dropped from error
            return None
        except Exception as error:  # paramiko passes on whatever its reader tripped over
            if transport.is_active():  # the key could not sign, or the host talks nonsense: not this one
                self._note(str(error) or type(error).__name__)
                return None
            raise Dropped from error
        if left:
            self._allowed = tuple(left)
        return left

    def _note(self, trouble: str) -> None:
        """For the error, if there will be one; each once, however often the connection is made."""
        self._troubles[trouble] = None

    def _in_words(self) -> str:
        labels = [offer.label for offer in self._refused]
        refused = [f"{len(self._refused)} key{'s' * (len(self._refused) > 1)} ({', '.join(labels)})"]
        tried = refused * bool(self._refused)
        if self._passwords_tried:
            tried.append("the password" if self._passwords_tried == 1 else f"{self._passwords_tried} passwords")
        said = f"{self._hop} refused {' and '.join(tried)}" if tried else f"{self._hop} wants a key or a password"
        if not self._passwords_tried and self._allowed and "password" not in self._allowed:
            said += f"; it takes only {', '.join(self._allowed)}"
        return said + (f" [{'; '.join(self._troubles)}]" if self._troubles else "")

    def _hint(self) -> str:
        if self._passwords_tried:
            return "was the password reset? Copy it from the console again"
        if self._keys_only or (self._allowed and "password" not in self._allowed):
            return "a key added after the machine was booted may not count: put it into ~/.ssh/authorized_keys there"
        return "run it in a terminal, which asks for the password, or set LAUNCH_PASSWORD"


def default_keys() -> list[Path]:
    """The key files that ssh looks for by itself, those that are there."""
    return [path for name in DEFAULT_KEYS if (path := Path.home() / ".ssh" / name).is_file()]


def public_blob(path: Path) -> bytes:
    """The public half of a key file, from the file beside it; empty where that is missing or unreadable."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The public file itself may be named, to say which of the agent's keys is meant.
        public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
        return base64.b64decode(public.read_text("utf-8").split()[1], validate=True)
    return b""


def _read_key(path: Path, passphrase: bytes | None) -> paramiko.PKey:
    import paramiko
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    try:
        return paramiko.PKey.from_path(path, passphrase)  # type: ignore[arg-type]
    except paramiko.SSHException:
        # paramiko 5.1 can't read an OpenSSH file without a comment whose content happens to need no padding.
        loaded = serialization.load_ssh_private_key(path.read_bytes(), passphrase)
        text = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        kind = paramiko.RSAKey if isinstance(loaded, RSAPrivateKey) else paramiko.ECDSAKey
        return kind.from_private_key(io.StringIO(text.decode("ascii")))


def open_agent() -> paramiko.Agent:
    """The agent, without keys where there is none.  Raises TimeoutError for one that hangs.  The caller closes it."""
    import paramiko

    return within(AGENT_TIMEOUT_S, paramiko.Agent)
