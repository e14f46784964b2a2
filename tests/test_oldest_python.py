"""What is shipped to a host runs on the oldest Python that may be there, and needs nothing but its standard library."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import remote.onhost
from remote import runs, store, sync
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from tests.connected import connect, eventually, folder_of_programs

SOURCES = sorted(Path(remote.onhost.__file__).parent.glob("*.py"))
FILES = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
RESULT = '{"protocol": 1, "state": "succeeded", "reason": ""}'


def oldest():
    """The oldest Python >= 3.8 at hand that is older than this one, None if there is none."""
    versions = sorted(
        (int(minor), path)
        for path in Path.home().glob(".pyenv/versions/3.*/bin/python")
        if (minor := re.match(r"3\.(\d+)", path.parent.parent.name).group(1)).isdigit() and int(minor) >= 8
    )
    found = [str(path) for _, path in versions] + [shutil.which(f"python3.{minor}") for minor in (8, 9, 10)]
    for path in filter(None, found):
        done = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, check=False
        )
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) < sys.version_info[:2]:
            return path
    return None


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_whole_way_on_the_oldest_python(tmp_path):
    python = oldest()
    if python is None:
        pytest.skip("no Python older than this one")
    tools = folder_of_programs(tmp_path / "bin", "sh", "mkdir", "cat", "sleep", "mv")
    (tools / "python3").symlink_to(os.path.realpath(python))
    content = os.urandom(500_000)
    (tmp_path / "file").write_bytes(content)
    file = store.LocalFile(tmp_path / "file", hashlib.sha256(content).hexdigest(), len(content))
    with EmbeddedHost(tmp_path / "home", env={"PATH": str(tools)}) as server, connect(server) as host:
        agent = Agent(host)
        assert agent.place.python == str(tools / "python3")
        assert store.push(agent, [file]).files == 1
        assert store.push(agent, [file]).files == 0
        succeed = f"cat in/file > out; echo 评论; printf '%s' '{RESULT}' > .r; mv .r result.json"
        done, endless = "old-aaaaaaaa", "old-bbbbbbbb"
        for run_id, phase in ((done, succeed), (endless, "echo begun; sleep 60")):
            plan = {
                "run_id": run_id,
                "name": "old",
                "files": FILES,
                "env": {},
                "phases": [{"state": "running", "argv": ["sh", "-c", phase]}],
            }
            links = [{"path": "in/file", "sha256": file.sha256}]
            assert runs.submit(agent, plan, links=links, documents={"spec.json": {}}).how == "setsid"
        said = list(runs.follow(agent, done))
        assert "".join(one.text for one in said if isinstance(one, runs.LogText)) == "评论\n"
        assert said[-1].state == "succeeded"
        sync.pull(agent, f"{agent.workspace}/runs/{done}", tmp_path / "pulled", names=["out"])
        assert {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()} == {"out": content}
        eventually(lambda: runs.states(agent, [endless])[0].state == "running")
        assert runs.stop(agent, endless).state == "stopped"
        assert {state.run_id: state.state for state in runs.states(agent)} == {done: "succeeded", endless: "stopped"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_is_python_3_8_with_nothing_but_the_standard_library(source):
    tree = ast.parse(source.read_text("utf-8"), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {name.name.partition(".")[0] for name in node.names} <= set(sys.stdlib_module_names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.partition(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, "nothing above the folder is shipped with it"
            assert node.module is None or f"{node.module}.py" in {path.name for path in SOURCES}
    # Evaluated lazily, annotations may be written as they are today.
    assert "from __future__ import annotations" in source.read_text("utf-8") or not any(
        isinstance(node, ast.FunctionDef) for node in ast.walk(tree)
    )
