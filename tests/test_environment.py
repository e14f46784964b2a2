"""Environments built for real: from a wheel that the test makes, without a network, and through every kind of death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from remote.agent import program
from tests.connected import alive, eventually, folder_of_programs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

RUN = "env-aaaaaaaa"
LOWEST = "{}.{}".format(*sys.version_info)
FITS = "import importlib.metadata as m, sys; sys.exit(m.version('launchtoy') != '1.0')"
# The marker comes last: not even the proof has seen it.
PROOF = "import launchtoy, os, sys; assert not os.path.exists(os.path.join(sys.prefix, 'ready.json')); print('proven')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    path = tmp_path_factory.mktemp("wheel") / "launchtoy-1.0-py3-none-any.whl"
    info = "launchtoy-1.0.dist-info"
    files = {
        "launchtoy.py": "answer = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: launchtoy\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


class Image:
    """A machine's Pythons and a workspace on it, and the `prepare` that a supervisor would start there."""

    def __init__(self, folder, wheel):
        self.workspace = folder / "work"
        self.bin = folder_of_programs(folder / "bin", "sh", "sleep")
        self.program = folder / "launch.pyz"
        self.program.write_bytes(program())
        self.root = self.workspace / "runs" / RUN
        self.root.mkdir(parents=True)
        self.recipe = {
            "key": "k1",
            "python": LOWEST,
            "requirements": [f"launchtoy @ {wheel.as_uri()}"],
            "constraints": [],
            "fits": FITS,
            "proof": PROOF,
        }
        self.folder = self.workspace / "envs" / "k1"
        self.marker = self.folder / "ready.json"

    def add(self, name, text='exec "{python}" "$@"'):
        """A Python of that name: without more, the one behind the tests' own, which has nothing installed."""
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + text.format(python=os.path.realpath(sys.executable)) + "\n")
        path.chmod(0o755)
        return str(path)

    def start(self, **recipe):
        plan = {"protocol": 1, "run_id": RUN, "environment": self.recipe | recipe}
        (self.root / "plan.json").write_text(json.dumps(plan))
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "VIRTUAL", "PYTHON"))},
            "PATH": str(self.bin),
            "PIP_NO_INDEX": "1",
            "PYTHONPATH": str(self.root / "code"),
        }
        return subprocess.Popen(
            [sys.executable, "-I", str(self.program), "prepare", str(self.workspace), RUN],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def prepare(self, **recipe):
        """Status and what was printed."""
        return ended(self.start(**recipe))

    @property
    def python(self):
        return json.loads((self.root / "environment.json").read_text())["python"]


def ended(process):
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


@pytest.fixture
def image(tmp_path, wheel):
    return Image(tmp_path, wheel)


def test_a_python_that_has_everything_is_taken_as_it_is(image):
    python = image.add("python3")
    status, said = image.prepare(fits="import json")
    assert (status, image.python) == (0, python)
    assert f"using {python}" in said
    assert not (image.workspace / "envs").exists()


def test_pythons_that_are_too_old_or_broken_or_lack_something_are_passed_over(image):
    image.add("python3", 'case $2 in *version_info*) exit 1 ;; esac; echo "too old was asked: $2" >&2; exit 0')
    image.add("python", "kill -9 $$")
    image.add("python3.14", "case $2 in *version_info*) exit 0 ;; esac; exit 1")
    good = image.add("python3.12")
    status, said = image.prepare(fits="import json")
    assert (status, image.python) == (0, good)
    assert "too old was asked" not in said


def test_without_a_python_that_is_new_enough_the_reason_is_told(image):
    image.add("python3")
    status, said = image.prepare(python="3.99")
    assert status == 1
    assert "environment: no Python >= 3.99 on this machine" in said
    assert not image.marker.exists()


def test_two_at_once_build_one_environment_that_serves_from_then_on(image):
    image.add("python3")
    # What a person installed, or the run's own code, must not count as installed.
    (image.root / "code").mkdir()
    (image.root / "code" / "launchtoy.py").write_text("raise SystemExit('shadowed')")
    outcomes = [ended(process) for process in (image.start(), image.start())]
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    everything = "".join(said for _, said in outcomes)
    assert everything.count("environment: building") == 1
    assert everything.count("proven") == 1
    assert everything.count("is ready\n") == 1
    assert image.python == str(image.folder / "bin" / "python")
    assert json.loads(image.marker.read_text())["key"] == "k1"
    status, said = image.prepare()
    assert (status, said.count("building")) == (0, 0)
    assert Path(image.python).is_relative_to(image.folder)
    # A marker alone is not believed: what it stands for must be there.
    next(image.folder.glob("lib/*/site-packages/launchtoy-1.0.dist-info/METADATA")).unlink()
    next(image.folder.glob("lib/*/site-packages/launchtoy-1.0.dist-info")).rename(image.folder / "gone")
    status, said = image.prepare(proof="import sys; sys.exit(3)")
    assert status == 1
    assert "building" in said
    assert "the proof failed" in said
    assert not image.marker.exists()


def children(pid):
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in map(str.split, table.splitlines()) if int(parent) == pid]


def test_a_build_that_is_killed_leaves_nothing_that_counts_and_a_retry_waits_for_what_goes_on(image):
    # A venv that takes until it is told: whoever is killed meanwhile leaves it behind, still writing.
    waits = 'case $2 in venv) while [ ! -e {go} ]; do sleep 0.05; done ;; esac; exec "{{python}}" "$@"'
    image.add("python3", waits.format(go=image.workspace / "go"))
    first = image.start()
    builder = eventually(lambda: [pid for pid in children(first.pid) if _is_venv(pid)])[0]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert alive(builder)
    second = image.start()
    assert second.stdout.readline() == "environment: another run is building it, waiting\n"
    assert not image.marker.exists()
    # As a supervisor does it: the whole group.
    os.killpg(first.pid, signal.SIGKILL)
    first.stdout.close()
    (image.workspace / "go").touch()
    status, said = ended(second)
    assert status == 0, said
    assert said.count("environment: building") == 1
    assert image.marker.exists()


def _is_venv(pid):
    try:
        return b"venv" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_an_install_that_fails_says_why_and_leaves_no_marker(image, tmp_path):
    image.add("python3")
    status, said = image.prepare(requirements=[f"nothing @ {(tmp_path / 'nothing-1.0-py3-none-any.whl').as_uri()}"])
    assert status == 1
    assert "-m pip install ended with status 1" in said
    assert not image.marker.exists()
