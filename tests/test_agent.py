"""Our program on a host: found, brought and asked, whatever the login prints and whatever the host answers."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from remote import runs, store, sync
from remote.agent import Agent, program, program_name
from remote.embedded import EmbeddedHost
from remote.errors import BadReply, NotFound, RemoteError, TimedOut
from remote.local_host import LocalHost
from tests.connected import PYTHON_FOLDER, connect, embedded_host, folder_of_programs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

ABSENT = "a" * 64
TOOLS = ("sh", "mkdir", "cat", "sleep", "yes", "tr", "head")


@pytest.fixture
def there(tmp_path):
    with embedded_host(tmp_path / "home") as (_, host):
        yield host


def text_and_bytecode(path):
    """The files of our program at `path`, each of them there as bytecode, too."""
    with zipfile.ZipFile(path) as kept:
        names = {name for name in kept.namelist() if name.endswith(".py")}
        assert {f"{name}c" for name in names} | names == set(kept.namelist())
        return {name: kept.read(name) for name in names}


def sent():
    with zipfile.ZipFile(io.BytesIO(program())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_finds_a_place_and_brings_the_program_once(there, tmp_path):
    agent = Agent(there)
    assert agent.workspace == str(tmp_path / "home" / ".cache" / "launch")
    installed = tmp_path / "home" / ".cache" / "launch" / "onhost" / program_name()
    assert text_and_bytecode(installed) == sent()
    before = installed.stat()
    again = Agent(there)
    assert again.call("states", {"run_ids": []}) == {"runs": []}
    after = installed.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in installed.parent.iterdir()] == [program_name()]


def test_its_name_follows_from_its_content():
    code = "from remote.agent import program_name; print(program_name())"
    names = {
        LocalHost().run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=os.getcwd()).check().stdout
        for seed in ("1", "2")
    }
    assert names == {f"{program_name()}\n".encode()}


def test_a_workspace_that_was_asked_for_is_the_one(there, tmp_path):
    asked = tmp_path / "big disk $HOME"
    assert Agent(there, workspace=str(asked)).workspace == str(asked / "launch")
    assert Agent(there, workspace="relative").workspace == str(tmp_path / "home" / "relative" / "launch")


def test_a_workspace_that_can_not_be_written_is_not_replaced_by_another(there, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="file/x can't be written to") as failure:
        _ = Agent(there, workspace=str(tmp_path / "file" / "x")).place
    assert "--workspace" in failure.value.hint
    assert not (tmp_path / "home" / ".cache").exists()


def test_a_home_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        embedded_host(tmp_path / "home", {"HOME": "/dev/null", "XDG_CACHE_HOME": str(tmp_path / "file")}) as (_, host),
        pytest.raises(NotFound, match="no folder there can be written to"),
    ):
        _ = Agent(host).place


def test_this_machine_needs_no_looking(tmp_path):
    agent = Agent(LocalHost(), workspace=str(tmp_path / "work"))
    assert agent.place.python == sys.executable
    assert agent.call("states", {"run_ids": []}) == {"runs": []}
    assert text_and_bytecode(tmp_path / "work" / "onhost" / program_name()) == sent()


def bare_host(folder, *, path, **env):
    """A host with nothing but `path` to find programs in."""
    return EmbeddedHost(folder / "home", env={"PATH": str(path), **env})


def test_a_host_without_python_is_named(tmp_path):
    with bare_host(tmp_path, path=folder_of_programs(tmp_path / "bin", *TOOLS)) as server, connect(server) as host:
        with pytest.raises(NotFound, match=r"no Python >= 3\.8") as failure:
            _ = Agent(host).place
        assert failure.value.hint


def test_a_python_that_is_too_old_or_broken_is_passed_over(tmp_path):
    bin_folder = folder_of_programs(tmp_path / "bin", *TOOLS)
    script(bin_folder / "python3", "exit 1")
    script(bin_folder / "python", "echo noise; kill -9 $$")
    (bin_folder / "python3.11").symlink_to(sys.executable)
    with bare_host(tmp_path, path=bin_folder) as server, connect(server) as host:
        assert Agent(host).place.python == str(bin_folder / "python3.11")


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def noisy(folder):
    """A folder with a `sh` that talks first, as a login shell with a message of the day does; it lets us run."""
    folder.mkdir()
    motd = "Welcome to GPU cloud\\n@launch wrong found\\n/bin/false\\n/\\n1\\n{}\\n" * 40
    script(folder / "sh", f"printf {shlex.quote(motd)}; printf 'no end of line'; exec /bin/sh \"$@\"")
    return folder


def test_what_a_login_prints_first_is_passed_over(tmp_path):
    path = [str(noisy(tmp_path / "noisy")), PYTHON_FOLDER]
    with EmbeddedHost(tmp_path / "home", path_prefix=path) as server, connect(server) as host:
        assert host.run(["true"]).stdout.startswith(b"Welcome")
        agent = Agent(host)
        assert agent.call("states", {"run_ids": []}) == {"runs": []}
        file = tmp_path / "file"
        file.write_bytes(b"content")
        sha256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
        assert store.push(agent, [store.LocalFile(file, sha256, 7)]).files == 1
        assert runs.states(agent) == []


@pytest.mark.ssh
def test_a_start_up_file_that_talks_is_passed_over(sshd):
    # bash reads it for every command that sshd starts; other shells have no such thing.
    (sshd.home / ".bashrc").write_text("echo hello from bashrc; printf 'and more'\n")
    try:
        with connect(sshd) as host:
            assert Agent(host).call("states", {"run_ids": []}) == {"runs": []}
    finally:
        (sshd.home / ".bashrc").unlink()


def test_a_login_that_runs_something_else_is_named(tmp_path):
    folder = tmp_path / "menu"
    folder.mkdir()
    script(folder / "sh", "printf 'choose:\\n1\\n2\\n3\\n4\\n'")
    with EmbeddedHost(tmp_path / "home", path_prefix=[str(folder)]) as server, connect(server) as host:
        with pytest.raises(BadReply, match="did not come back") as failure:
            _ = Agent(host).place
        assert failure.value.hint


@pytest.mark.parametrize(
    ("verb", "request_", "code", "words"),
    [
        ("no such verb", {}, "verb_unknown", "is not known"),
        ("states", {"workspace": "/dev/null/x", "run_ids": ["../x"]}, None, ""),
        ("stop", {"run_id": "../../x"}, "run_id_invalid", "not a run id"),
        ("stop", {"run_id": "none-aaaaaaaa"}, "not_found", "there is no run none-aaaaaaaa"),
    ],
)
def test_what_the_host_refuses_is_an_error(there, verb, request_, code, words):
    agent = Agent(there)
    if code is None:
        assert agent.call(verb, request_)["runs"][0]["state"] == "gone"
        return
    with pytest.raises(RemoteError, match=words) as failure:
        agent.call(verb, request_)
    assert failure.value.code == code
    assert failure.value.message.startswith("there: ")


def test_a_run_that_is_not_there_is_not_found_by_streams_either(there):
    agent = Agent(there)
    with pytest.raises(NotFound, match="there is no run") as failure:
        list(runs.follow(agent, "none-aaaaaaaa"))
    assert failure.value.hint


def test_a_request_the_program_trips_over_is_an_error_with_its_words(there):
    with pytest.raises(BadReply, match=r"no answer to stop: (.|\n)*KeyError"):
        Agent(there).call("stop", {})


# Where python3 is a script of somebody else's.  $3: verb, $4: nonce; installing and probing go well.
FAKE = """
case $2 in -c) cat >/dev/null; echo "$0"; exit 0 ;; esac
verb=$3 nonce=$4
{answer}
"""
ANSWERS = {
    "nothing": "",
    "garbage": "head -c 100000 /dev/urandom",
    "endless lines": "yes",
    "an endless line": "yes | tr -d '\\n'",
    "an endless line after the mark": 'printf "\\n@launch $nonce reply "; yes | tr -d "\\n"',
    "no JSON": 'printf "\\n@launch $nonce reply nonsense\\n"',
    "not ASCII": 'printf "\\n@launch $nonce reply {\\"runs\\": \\"\\377\\"}\\n"',
    "a list": 'printf "\\n@launch $nonce reply []\\n"',
    "deep JSON": 'printf "\\n@launch $nonce reply "; yes "[" | head -n 500000 | tr -d "\\n"; echo',
    "a huge number": 'printf "\\n@launch $nonce reply {\\"runs\\": "; yes 1 | head -n 9999 | tr -d "\\n"; echo "}"',
    "another kind": 'printf "\\n@launch $nonce surprise {}\\n"',
    "another nonce": 'printf "\\n@launch 0123456789abcdef reply {\\"runs\\": []}\\n"',
    "no list": 'printf "\\n@launch $nonce reply {\\"runs\\": 7}\\n"',
    "no key": 'printf "\\n@launch $nonce reply {}\\n"',
    "an empty reply and a failure": 'printf "\\n@launch $nonce reply {}\\n"; exit 3',
}


@pytest.fixture(scope="module")
def liar(tmp_path_factory):
    """A host whose python3 does what the script `answer` in its home says."""
    folder = tmp_path_factory.mktemp("liar")
    bin_folder = folder_of_programs(folder / "bin", *TOOLS)
    script(bin_folder / "python3", FAKE.format(answer=f". {folder}/answer"))
    with bare_host(folder, path=bin_folder) as server, connect(server) as host:
        (folder / "answer").touch()
        agent = Agent(host)
        assert agent.place.python == str(bin_folder / "python3")

        def answering(text):
            (folder / "answer").write_text(text)
            return agent

        yield answering


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_an_answer_that_is_none_is_a_bad_reply_in_bounded_time_and_memory(liar, tmp_path, answer):
    agent = liar(answer)
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(BadReply):
            runs.states(agent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10
    assert peak < 64 << 20


def test_a_host_that_asks_for_what_was_not_offered_gets_nothing(liar, tmp_path):
    missing = json.dumps({"missing": [None, -1, 3, "../x"], "parts": {}, "free": 10**9})
    agent = liar(f"printf '\\n@launch %s stream {{}}\\n%s\\n' \"$nonce\" {shlex.quote(missing)}")
    assert store.push(agent, [store.LocalFile(tmp_path, ABSENT, 0)]) == store.Sent(0, 0, 1)


def test_a_host_that_never_answers_times_out(liar):
    agent = liar("exec sleep 30")
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"no answer to states within 0\.5 s"):
        agent.call("states", {"run_ids": []}, timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_a_host_that_answers_and_never_ends_is_not_waited_for(liar):
    agent = liar('printf "\\n@launch $nonce reply {}\\n"; exec sleep 30')
    started = time.monotonic()
    assert agent.call("states", {"run_ids": []}) == {}
    assert time.monotonic() - started < 5


STREAM = 'printf "\\n@launch $nonce stream {}\\n"; '
SAYS = {
    "no JSON": (STREAM + "echo nonsense", "can't be read"),
    "another shape": (STREAM + "echo '{\"log\": 7}'", "wrong shape"),
    "a list": (STREAM + "echo '[]'", "wrong shape"),
    "a wrong state": (STREAM + "echo '{\"state\": {}}'", "wrong shape"),
    "a state of the future": (STREAM + 'echo \'{"state": {"run_id": "x", "state": "dreaming"}}\'', "unknown here"),
    "an impossible age": (
        STREAM + 'printf \'{"state": {"run_id": "x", "state": "running", "age_s": 1\'; '
        "yes 0 | head -n 400 | tr -d '\\n'; echo '}}'",
        "wrong shape",
    ),
    "deep JSON": (STREAM + 'yes "[" | head -n 500000 | tr -d "\\n"; echo', "can't be read"),
    "an end of its own": (STREAM + "echo sorry >&2; exit 3", "follow ended with status 3: sorry"),
    "an end too early": (STREAM + "exit 0", "the connection broke"),
}


@pytest.mark.parametrize(("answer", "words"), SAYS.values(), ids=list(SAYS))
def test_a_stream_that_is_none_is_an_error(liar, answer, words):
    with pytest.raises(RemoteError, match=words):
        list(runs.follow(liar(answer), "x-aaaaaaaa"))


def test_an_endless_line_in_a_stream_is_refused(liar):
    agent = liar(STREAM + "yes | tr -d '\\n'")
    started = time.monotonic()
    with pytest.raises(BadReply):
        list(runs.follow(agent, "x-aaaaaaaa"))
    with pytest.raises(BadReply):
        sync.pull(agent, "x", Path("nowhere"))
    assert time.monotonic() - started < 10


def test_a_program_that_did_not_arrive_whole_is_not_installed(tmp_path):
    from remote.agent import INSTALL

    target = tmp_path / "onhost" / program_name()
    argv = [sys.executable, "-I", "-c", INSTALL, str(target)]
    done = LocalHost().run(argv, stdin=program()[:-100])
    assert done.exit_status == 1
    assert b"did not arrive whole" in done.stderr
    assert not target.parent.exists()
    LocalHost().run(argv, stdin=program()).check()
    assert [path.name for path in target.parent.iterdir()] == [program_name()]
