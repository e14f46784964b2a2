"""Tells somebody over HTTP that a run is over.

A target's path, query and token are secret: of them nothing is ever written, nor of what a server answers, nor of an
exception's words, which may quote them.  A target is {"kind": "json" or "wechat", "url"}, with "token" for WeChat,
and optionally "figures", names of numbers and where they stand in the run's folder.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, cast
from urllib.parse import urljoin, urlsplit

from .atomic import read_json, write_json
from .run import Run

SCHEMA = 1
FILE = "notice.json"
SCHEMES = ("http", "https")
RETRY_S = (5.0, 15.0, 45.0, 120.0)
MOST_WAIT_S = 120.0
TRY_S = 20.0
MOST_REDIRECTS = 3
MOST_CHARACTERS = 2000
ANSWER_BYTES = 64 * 1024
# Everything else that is no success will be the same the next time.
PASSING = (408, 425, 429)
# What WeChat's form has room for.
TITLE_CHARACTERS, CONTENT_CHARACTERS = 20, 200


class Outcome(NamedTuple):
    """What became of one notice; `target` is scheme and host alone."""

    target: str
    sent: bool
    tries: int
    why: str


class _Tried(NamedTuple):
    status: int = 0
    why: str = ""
    retry_after_s: float = 0.0


def about(run: Run, row: Dict[str, Any], seconds: float) -> Dict[str, Any]:
    """What there is to tell of a run that ended as `row` says, `seconds` after it was submitted."""
    return {
        "schema": SCHEMA,
        "event": "run_over",
        "run_id": run.run_id,
        "name": str(row.get("name") or "")[:MOST_CHARACTERS],
        "state": row["state"],
        "reason": str(row.get("reason") or "")[:MOST_CHARACTERS],
        "host": socket.gethostname(),
        "submitted_at": row.get("submitted_at"),
        "seconds": round(seconds, 1),
    }


def figures(run: Run, named: Any) -> Dict[str, float]:
    """The numbers that a target asks for: {name: [file, key, key, ...]}; those that are there.

    A key {"key": value} stands for the first element of a list that has that value.
    """
    found: Dict[str, float] = {}
    for name, way in named.items() if isinstance(named, dict) else ():
        value = _value(run, way)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            found[str(name)] = value
    return found


def _value(run: Run, way: Sequence[Any]) -> Any:
    try:
        value = read_json(run.path(os.path.normpath(way[0])))
        for key in way[1:]:
            if isinstance(key, dict):
                value = next(one for one in value if all(one.get(name) == wanted for name, wanted in key.items()))
            else:
                value = value[key]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, StopIteration, RecursionError):
        return None
    return value


def place(url: str) -> str:
    """The part of an address that is no secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}"


def deliver(target: Dict[str, Any], said: Dict[str, Any]) -> Outcome:
    """Tell one target, several times if need be; takes minutes at most."""
    try:
        request, where = _request(target, said), place(target["url"])
    except (KeyError, TypeError, ValueError):
        return Outcome("", False, 0, "the target is not an address")
    waits = [float(wait) for wait in target.get("retry_s", RETRY_S)]
    for number in range(len(waits) + 1):
        tried = _attempt(request, float(target.get("try_s", TRY_S)))
        if (200 <= tried.status < 300 and not tried.why) or tried.status == 303:  # "see other": it was taken
            return Outcome(where, True, number + 1, "")
        if 300 <= tried.status < 500 and tried.status not in PASSING:
            return Outcome(where, False, number + 1, tried.why)
        if number < len(waits):
            time.sleep(min(max(waits[number], tried.retry_after_s), MOST_WAIT_S))
    return Outcome(where, False, len(waits) + 1, tried.why)


def _request(target: Dict[str, Any], said: Dict[str, Any]) -> urllib.request.Request:
    if urlsplit(target["url"]).scheme not in SCHEMES:
        raise ValueError("not http")
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "launch"}
    body = said
    if target.get("kind") == "wechat":
        headers["Authorization"] = target["token"]
        body = _for_wechat(said)
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return urllib.request.Request(target["url"], data=content, headers=headers, method="POST")


def _for_wechat(said: Dict[str, Any]) -> Dict[str, str]:
    lines = [
        f"{said['name']} {said['state']}: {said['reason']}" if said["reason"] else f"{said['name']} {said['state']}"
    ]
    lines += [f"{name} {value:.4g}" for name, value in said.get("metrics", {}).items()]
    lines += [f"{said['seconds'] / 60:.0f} min on {said['host']}", said["run_id"]]
    return {
        "title": f"launch: {said['state']}"[:TITLE_CHARACTERS],
        "name": said["name"][:TITLE_CHARACTERS] or said["run_id"][:TITLE_CHARACTERS],
        "content": "; ".join(lines)[:CONTENT_CHARACTERS],
    }


def _attempt(request: urllib.request.Request, limit_s: float) -> _Tried:
    """One try.  A server that dribbles is left alone after `limit_s`: no time-out of a socket ends that."""
    found: List[_Tried] = []
    thread = threading.Thread(target=lambda: found.append(_asked(request, limit_s)), daemon=True)
    thread.start()
    thread.join(limit_s)
    return found[0] if found else _Tried(why=f"no answer within {limit_s:g} s")


def _asked(request: urllib.request.Request, limit_s: float) -> _Tried:
    opener = urllib.request.OpenerDirector()  # no files, no FTP
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(), _SameScheme(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    try:
        with cast(http.client.HTTPResponse, opener.open(request, timeout=limit_s)) as answer:
            wrong = "the service refused it" if _says_no(request, answer.read(ANSWER_BYTES)) else ""
            return _Tried(answer.status, wrong)
    except urllib.error.HTTPError as error:
        with error:
            return _Tried(error.code, f"status {error.code}", _seconds(error.headers.get("Retry-After")))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _Tried(why=_words(error))


def _says_no(request: urllib.request.Request, answer: bytes) -> bool:
    """AutoDL's services say in their answer whether they did what was asked."""
    if not request.has_header("Authorization"):
        return False
    try:
        code = json.loads(answer)["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return isinstance(code, str) and code.lower() != "success"


def _words(error: Exception) -> str:
    """What went wrong, without a word that the error itself brings: it may quote the address."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, (socket.timeout, TimeoutError)):
        return "timed out"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or 'refused'}" if isinstance(cause.reason, str) else "TLS: refused"
    if isinstance(cause, socket.gaierror):
        return "no name server knows the host"
    number = getattr(cause, "errno", None)
    return os.strerror(number) if isinstance(number, int) else type(cause).__name__


def _seconds(header: Optional[str]) -> float:
    """A Retry-After in seconds; a date is not worth a parser."""
    return min(float(header), MOST_WAIT_S) if header and header.strip().isdigit() and len(header) < 9 else 0.0


class _SameScheme(urllib.request.BaseHandler):
    """Follows a redirection as the POST it is, never to another scheme, and to another host without the token."""

    def http_error_302(
        self, request: urllib.request.Request, answer: Any, code: int, message: str, headers: Any
    ) -> Any:
        new = urljoin(request.full_url, headers.get("Location") or "")
        old, count = urlsplit(request.full_url), getattr(request, "redirections", 0)
        if urlsplit(new).scheme != old.scheme or not headers.get("Location") or count >= MOST_REDIRECTS:
            return None  # an error then, with its status
        answer.close()
        kept = {name: value for name, value in request.header_items() if name.lower() != "host"}
        if urlsplit(new).netloc != old.netloc:
            kept.pop("Authorization", None)
        again = urllib.request.Request(new, data=request.data, headers=kept, method="POST")
        again.redirections = count + 1  # type: ignore[attr-defined]
        return self.parent.open(again, timeout=request.timeout)

    http_error_301 = http_error_307 = http_error_308 = http_error_302


class Notices:
    """All notices of one run, each on its way in a thread of its own; what became of them is kept."""

    def __init__(self, targets: Sequence[Dict[str, Any]], said: Dict[str, Any], run: Run) -> None:
        self._run, self._lock = run, threading.Lock()
        self._outcomes: List[Outcome] = []
        self._threads = [threading.Thread(target=self._deliver, args=(one, said), daemon=True) for one in targets]
        for thread in self._threads:
            thread.start()

    def _deliver(self, target: Dict[str, Any], said: Dict[str, Any]) -> None:
        found = figures(self._run, target.get("figures"))
        outcome = deliver(target, {**said, "metrics": found} if found else said)
        with self._lock, contextlib.suppress(OSError):  # no room, or the run is gone
            self._outcomes.append(outcome)
            write_json(self._run.path(FILE), {"notices": [one._asdict() for one in self._outcomes]})

    def wait(self, limit_s: float) -> bool:
        """Whether all are done, after `limit_s` at most."""
        deadline = time.monotonic() + limit_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
