"""Notices that a run is over: what they say, to servers that behave badly, and that their addresses stay secret."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from remote import runs
from remote.agent import Agent
from remote.local_host import LocalHost
from remote.onhost import notice
from tests.connected import alive, eventually, private_tmux
from tests.test_runs import FILES, LETTERS, SUCCEED, Place

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]
SECRET = "s3cr3t-t0k3n"
QUICK = {"retry_s": [0.05, 0.05, 0.05], "try_s": 0.5}


class Server:
    """An HTTP server that answers as it is told, and remembers what it was asked."""

    def __init__(self):
        self.asked: list[tuple[str, str, Any, dict[str, str]]] = []
        self.answers: list[Any] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.asked.append((self.command, self.path, body, dict(self.headers)))
                answer = told.answers.pop(0) if told.answers else 200
                if callable(answer):
                    answer(self)
                    return
                status, headers, content = answer if isinstance(answer, tuple) else (answer, {}, b"")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *words):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    with private_tmux() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name in ("TMUX", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        how = "tmux" if shutil.which("tmux") else "setsid"
        yield Place(Agent(LocalHost(), workspace=str(tmp_path / "work")), how, variables["TMUX_TMPDIR"])


def submit(place, phase, *targets, **changes):
    """The id of a run of this shell text that tells these targets."""
    run_id = "toy-" + "".join(LETTERS[byte % 32] for byte in os.urandom(8))
    plan = {"run_id": run_id, "name": "toy", "files": FILES, "env": {}, "notify": len(targets),
            "phases": [{"state": "running", "argv": ["sh", "-c", phase]}]}  # fmt: skip
    runs.submit(place.agent, plan | changes, links=[], documents={}, secrets={"LAUNCH_NOTIFY": json.dumps(targets)})
    eventually(lambda: (place.root(run_id) / "guard.json").exists())
    return run_id


def to(server, path=f"/hook/{SECRET}?key={SECRET}", **changes):
    return {"kind": "json", "url": server.url + path} | QUICK | changes


def outcomes(place, run_id, count=1):
    """What became of the notices, once that is known of all."""
    path = place.root(run_id) / "notice.json"
    eventually(lambda: path.exists() and len(json.loads(path.read_text())["notices"]) == count)
    return json.loads(path.read_text())["notices"]


def delivered(target):
    """What becomes of a notice of a success."""
    said = {"schema": 1, "name": "toy", "run_id": "toy-aaaaaaaa", "state": "succeeded", "reason": "", "seconds": 9.0}
    return notice.deliver(target, said | {"host": "box"})


METRICS = json.dumps(
    {"models": [{"key": "base", "metrics": {"accuracy": 0.5}}, {"key": "lora", "metrics": {"accuracy": 0.91}}]}
)
FIGURES = {
    "accuracy": ["artifacts/metrics.json", "models", {"key": "lora"}, "metrics", "accuracy"],
    "f1": ["none.json", "f1"],
}


def test_a_success_is_told_with_its_figures(place, server):
    phase = f"mkdir artifacts; printf '%s' '{METRICS}' >artifacts/metrics.json; {SUCCEED}"
    run_id = submit(place, phase, to(server, figures=FIGURES))
    assert outcomes(place, run_id) == [{"target": "http://127.0.0.1", "sent": True, "tries": 1, "why": ""}]
    [(method, path, said, headers)] = server.asked
    assert (method, path) == ("POST", f"/hook/{SECRET}?key={SECRET}")
    assert headers["Content-Type"].startswith("application/json")
    assert set(said) == {
        "schema", "event", "run_id", "name", "state", "reason", "host", "submitted_at", "seconds", "metrics",
    }  # fmt: skip
    assert (said["schema"], said["event"], said["run_id"], said["name"]) == (1, "run_over", run_id, "toy")
    assert (said["state"], said["reason"], said["host"]) == ("succeeded", "", socket.gethostname())
    assert said["metrics"] == {"accuracy": 0.91}
    assert 0 < said["seconds"] < 60
    assert abs(said["submitted_at"] - time.time()) < 60
    eventually(lambda: not alive(place.json(run_id, "guard.json")["pid"]))  # it has nothing left to do


@pytest.mark.parametrize(
    ("how", "state", "reason"),
    [
        ("exit 3", "failed", "running: ended with status 3"),
        ("kill the supervisor", "failed", "supervisor killed"),
        ("stop", "stopped", "asked to"),
    ],
)
def test_every_end_is_told(place, server, how, state, reason):
    run_id = submit(place, how if how.startswith("exit") else "sleep 60", to(server))
    if how == "kill the supervisor":
        os.kill(place.supervisor(run_id), signal.SIGKILL)
    if how == "stop":
        runs.stop(place.agent, run_id)
    assert outcomes(place, run_id)[0]["sent"] is True
    assert (server.asked[0][2]["state"], server.asked[0][2]["reason"]) == (state, reason)


def never(handler):
    time.sleep(3)


def closes(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def dribbles(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    with contextlib.suppress(OSError):
        for _ in range(30):
            handler.wfile.write(b"X: y\r\n")
            time.sleep(0.1)


def slow(handler):
    time.sleep(0.2)
    handler.send_response(204)
    handler.end_headers()


@pytest.mark.parametrize(
    ("answers", "sent", "tries", "why"),
    [
        ([500, 500, 200], True, 3, ""),
        ([503] * 4, False, 4, "status 503"),
        ([429, 204], True, 2, ""),
        ([slow], True, 1, ""),
        ([never, 200], True, 2, ""),
        ([closes, 200], True, 2, ""),
        ([dribbles, 200], True, 2, ""),
        ([closes] * 4, False, 4, ""),
        ([404], False, 1, "status 404"),
        ([401], False, 1, "status 401"),
        ([303], True, 1, ""),
    ],
)
def test_servers_that_behave_badly(server, answers, sent, tries, why):
    server.answers = list(answers)
    outcome = delivered(to(server))
    assert (outcome.sent, outcome.tries) == (sent, tries)
    assert why in outcome.why
    assert len(server.asked) == tries


def test_the_time_a_server_asks_for_is_given(server):
    server.answers = [(429, {"Retry-After": "1"}, b"")]
    began = time.monotonic()
    assert delivered(to(server)).tries == 2
    assert 1 <= time.monotonic() - began < 5


def test_a_redirection_is_followed_as_what_it_was(server):
    server.answers = [(307, {"Location": "/elsewhere"}, b"")]
    assert delivered(to(server)).sent
    assert [(method, path) for method, path, *_ in server.asked][1:] == [("POST", "/elsewhere")]
    assert server.asked[0][2] == server.asked[1][2]


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://127.0.0.1:1/", "", "x://y"])
def test_no_redirection_leads_to_another_scheme(server, where):
    server.answers = [(302, {"Location": where}, b"")]
    assert delivered(to(server)) == ("http://127.0.0.1", False, 1, "status 302")


def test_a_redirection_in_a_circle_ends(server):
    server.answers = [(307, {"Location": "/again"}, b"")] * 20
    assert not delivered(to(server)).sent
    assert len(server.asked) == 4


def test_a_token_stays_with_its_host(server):
    other = Server()
    server.answers = [(307, {"Location": f"{other.url}/x"}, b"")]
    assert delivered(to(server, kind="wechat", token=SECRET)).sent
    assert server.asked[0][3]["Authorization"] == SECRET
    assert "Authorization" not in other.asked[0][3]
    other.close()


@pytest.mark.parametrize(
    ("answer", "sent"), [(b'{"code": "Success", "msg": ""}', True), (b'{"code": "AuthFailed"}', False), (b"what", True)]
)
def test_wechat(place, server, answer, sent):
    server.answers = [(200, {}, answer)] * 4
    long = "x" * 60
    run_id = submit(place, f"echo {long}; exit 3", to(server, kind="wechat", token=SECRET), name=long)
    [outcome] = outcomes(place, run_id)
    assert outcome["sent"] is sent
    said = server.asked[0][2]
    assert set(said) == {"title", "name", "content"}
    assert said["title"] == "launch: failed"
    assert len(said["name"]) <= 20
    assert len(said["content"]) <= 200
    assert "running: ended with status 3" in said["content"]
    assert server.asked[0][3]["Authorization"] == SECRET


def test_one_that_fails_does_not_hold_up_another(place, server):
    other = Server()
    server.answers = [500] * 4
    run_id = submit(place, SUCCEED, to(server), to(other), {"kind": "json", "url": "file:///etc/passwd"}, {"kind": "x"})
    found = {(one["target"], one["sent"]) for one in outcomes(place, run_id, 4)}
    assert found == {("http://127.0.0.1", False), ("http://127.0.0.1", True), ("", False)}
    other.close()


def test_the_end_of_the_run_waits_for_no_notice(place, server):
    server.answers = [never]
    began = time.monotonic()
    run_id = submit(place, SUCCEED, to(server, try_s=5))
    assert place.end(run_id).state == "succeeded"
    assert time.monotonic() - began < 3


def test_the_proxy_of_the_login_is_used(place, server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://somebody:{SECRET}@{server.url.removeprefix('http://')}")
    run_id = submit(place, SUCCEED, {"kind": "json", "url": f"http://nowhere.invalid/{SECRET}"} | QUICK)
    assert outcomes(place, run_id) == [{"target": "http://nowhere.invalid", "sent": True, "tries": 1, "why": ""}]
    assert server.asked[0][1] == f"http://nowhere.invalid/{SECRET}"


def test_its_secrets_are_nowhere_to_be_seen(place, server):
    server.answers = [(500, {}, f"echo of {SECRET}".encode()), closes, (302, {"Location": f"x://{SECRET}"}, b"")]
    go = "until [ -e go ]; do sleep 0.02; done; "
    run_id = submit(
        place, go + SUCCEED, to(server, kind="wechat", token=SECRET), {"kind": "json", "url": f"http://[{SECRET}/"}
    )
    guard = place.json(run_id, "guard.json")["pid"]

    def seen():
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            if path.name == str(os.getpid()):
                continue
            for name in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    if SECRET.encode() in (path / name).read_bytes():
                        found.append(path / name)
        files = [path for path in Path(place.agent.workspace).rglob("*") if path.is_file()]
        return found + [path for path in files if SECRET.encode() in path.read_bytes()]

    assert Path(f"/proc/{guard}/cmdline").exists()
    assert seen() == []
    (place.root(run_id) / "go").touch()
    outcomes(place, run_id, 2)
    assert seen() == []
