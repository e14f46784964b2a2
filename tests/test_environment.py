"""Environments made for real, of wheels that the test makes, without a network, and through every kind of death."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from launcher import recipe as recipes
from remote.agent import program
from remote.onhost import accelerator, environment, installer, interpreter
from remote.onhost.accelerator import Accelerator
from remote.onhost.narrated import Failed
from tests.connected import alive, eventually, folder_of_programs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

RUN = "env-aaaaaaaa"
PROOF = """
import json, os, sys
import launchmate, launchtoy
asked = json.loads(sys.argv[1])
assert asked["kept"] in ("", launchtoy.__file__)
print("proven", asked["gpu"], launchtoy.version, launchtoy.__file__, launchmate.version, launchmate.__file__)
"""


def wheel(folder, name, version, text=""):
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"version = {version!r}\n{text}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in files.items():
            archive.writestr(one, content)
    return path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    for name, version in (("launchtoy", "1.0"), ("launchtoy", "1.5"), ("launchmate", "1.0"), ("launchmate", "3.0")):
        wheel(folder, name, version)
    return folder


class Image:
    """A machine's Pythons and a workspace on it, and the `prepare` that a supervisor would start there."""

    def __init__(self, folder, wheels):
        self.workspace = folder / "work"
        self.bin = folder_of_programs(folder / "bin", "sh", "sleep")
        self.program = folder / "launch.pyz"
        self.program.write_bytes(program())
        self.root = self.workspace / "runs" / RUN
        self.root.mkdir(parents=True)
        self.wheels = wheels
        self.recipe = {
            "python": list(sys.version_info[:2]),
            "needs": [["launchtoy", [1, 0], [2]], ["launchmate", [1, 0], []]],
            "kept": {"name": "launchtoy", "module": "launchtoy", "rows": [[[525], "launchtoy==1.0"]],
                     "plain": "launchtoy==1.0"},
            "beside": ["launchmate==1.0"],
            "requirements": ["launchmate"],
            "constraints": ["launchmate==1.0"],
            "proof": PROOF,
            "uv": "uv==0.0.0",
            "gpu": True,
            "wheels": str(wheels),
        }  # fmt: skip
        self.said = []
        self.runner = sys.executable
        """The Python that carries out our program there."""

    @property
    def env(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "VIRTUAL", "PYTHON"))}
        return {**kept, "PATH": str(self.bin), "PYTHONPATH": str(self.root / "code")}

    @property
    def folders(self):
        return [path for path in (self.workspace / "envs").iterdir() if path.is_dir()]

    def add(self, name, text='exec "{python}" "$@"'):
        """A Python of that name: without more, the one behind the tests' own, which has nothing installed."""
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + text.format(python=os.path.realpath(sys.executable)) + "\n")
        path.chmod(0o755)
        return str(path)

    def venv(self, name, *installed):
        """An image's Python of that name, with these wheels in it."""
        folder = self.workspace.parent / f"image-{name}"
        subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--without-pip", str(folder)], check=True)
        for one in installed:
            with zipfile.ZipFile(self.wheels / f"{one}-py3-none-any.whl") as archive:
                archive.extractall(next(folder.glob("lib/*/site-packages")))
        return self.add(name, f'exec "{folder}/bin/python" "$@"'), folder

    def gpu(self, driver="550.54.15"):
        path = self.bin / "nvidia-smi"
        path.write_text(
            f'#!/bin/sh\ncase "$1" in -L) echo "GPU 0: NVIDIA Test (UUID: GPU-1)" ;; *) echo {driver} ;; esac\n'
        )
        path.chmod(0o755)

    def start(self, **recipe):
        files = {"result": "result.json"}
        plan = {"protocol": 1, "run_id": RUN, "environment": self.recipe | recipe, "files": files}
        (self.root / "plan.json").write_text(json.dumps(plan))
        return subprocess.Popen(
            [self.runner, "-I", str(self.program), "prepare", str(self.workspace), RUN],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def prepare(self, **recipe):
        """Status and what was printed."""
        return ended(self.start(**recipe))

    def here(self, boot="boot", **recipe):
        """The same in this process; see `inside`."""
        self.said.clear()
        return environment.prepare(str(self.workspace), self.recipe | recipe, boot, self.said.append)

    @property
    def prepared(self):
        return json.loads((self.root / "environment.json").read_text())


def ended(process):
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


@pytest.fixture
def image(tmp_path, wheels):
    return Image(tmp_path, wheels)


@pytest.fixture
def inside(image, monkeypatch):
    """The image, for calls in this process."""
    for name in set(os.environ) - set(image.env):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", image.env["PATH"])
    return image


def test_a_python_that_has_everything_is_taken_as_it_is(image):
    python, _ = image.venv("python3", "launchtoy-1.5", "launchmate-3.0")
    status, said = image.prepare()
    assert (status, image.prepared) == (0, {"python": python, "how": "image", "key": "", "proven_on": "cpu"}), said
    assert f"using {python}" in said
    assert image.folders == []


def test_pythons_that_are_too_old_or_broken_or_lie_are_passed_over(image):
    image.add(
        "python3", 'case $3 in *version_info*) echo nothing of use ;; esac; echo "was asked more: $3" >&2; exit 0'
    )
    image.add("python", "kill -9 $$")
    packages = '{{"launchtoy": ["1.5", "/"], "launchmate": ["3.0", "/"]}}'
    old = f'@launch [[3, 9, 1], "/usr/bin/python3.9", {packages}, [], "", ""]'
    image.add("python3.14", f"echo '{old}'")
    # It says that everything is there, and then nothing can be imported.
    image.add(
        "python3.13",
        f"""case $3 in *proven*) exit 3 ;; esac; echo '{old.replace("3, 9", "3, 13").replace("3.9", "3.13")}'""",
    )
    good, _ = image.venv("python3.12", "launchtoy-1.5", "launchmate-3.0")
    status, said = image.prepare()
    assert (status, image.prepared["python"]) == (0, good), said
    assert "was asked more" not in said
    assert "ended with status 3" in said


def test_without_a_python_that_is_new_enough_the_reason_is_told(image):
    image.add("python3")
    status, said = image.prepare(python=[3, 99])
    assert (status, said) == (1, "environment: no Python >= 3.99 on this machine\n")
    result = json.loads((image.root / "result.json").read_text())
    assert result["reason"] == "no environment: no Python >= 3.99 on this machine"
    assert image.folders == []


def test_two_at_once_build_one_environment_that_serves_from_then_on(image):
    image.add("python3")
    # What a person installed, or the run's own code, must not count as installed.
    (image.root / "code").mkdir()
    (image.root / "code" / "launchtoy.py").write_text("raise SystemExit('shadowed')")
    outcomes = [ended(process) for process in (image.start(), image.start())]
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    everything = "".join(said for _, said in outcomes)
    assert everything.count("environment: building") == 1
    assert everything.count("environment: proven") == 1
    [folder] = image.folders
    expected = {"python": str(folder / "bin" / "python"), "how": "built", "key": folder.name, "proven_on": "cpu"}
    assert image.prepared == expected
    assert json.loads((folder / "ready.json").read_text())["key"] == folder.name
    assert image.prepare() == (0, f"environment: ready: {folder}/bin/python\n")
    # A marker alone is not believed: what it stands for must be there.
    (folder / "bin" / "python").unlink()
    status, said = image.prepare(proof="import sys; sys.exit(3)")
    assert status == 1
    assert "building" in said
    assert "ended with status 3" in said
    assert image.folders == []


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
    assert not list(image.workspace.glob("envs/*/ready.json"))
    # As a supervisor does it: the whole group.
    os.killpg(first.pid, signal.SIGKILL)
    first.stdout.close()
    (image.workspace / "go").touch()
    status, said = ended(second)
    assert status == 0, said
    assert said.count("environment: building") == 1
    assert image.prepared["how"] == "built"


def _is_venv(pid):
    try:
        return b"venv" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_a_build_that_is_killed_at_any_moment_is_done_again(image):
    image.add("python3")
    chance = random.Random(5)
    started = time.monotonic()
    assert image.prepare()[0] == 0
    took = time.monotonic() - started
    for attempt in range(10):
        base = image.add("python3", f'# {attempt}\nexec "{{python}}" "$@"')
        constraints = ["launchmate==1.0", f"another=={attempt}"]  # another environment each time
        process = image.start(constraints=constraints)
        time.sleep(chance.uniform(0.02, took))
        os.killpg(process.pid, signal.SIGKILL)
        ended(process)
        status, said = image.prepare(constraints=constraints)
        assert status == 0, said
        checked = subprocess.run(
            [image.prepared["python"], "-I", "-c", "import launchtoy, launchmate"], check=False, capture_output=True
        )
        assert checked.returncode == 0, base


def test_an_install_that_fails_says_why_and_leaves_nothing(image):
    image.add("python3")
    status, said = image.prepare(requirements=["launchmate", "nothing-of-the-kind"])
    assert status == 1
    assert "nothing-of-the-kind" in said.splitlines()[-1]
    assert image.folders == []


def test_what_the_image_has_is_kept_and_all_else_comes_beside_it(inside):
    _, folder = inside.venv("python3", "launchtoy-1.5", "launchmate-3.0")
    toy = next(folder.glob("lib/*/site-packages/launchtoy/__init__.py"))
    before = toy.stat().st_mtime_ns, toy.read_bytes()
    prepared = inside.here(needs=[["launchtoy", [1, 0], [2]], ["launchmate", [1, 0], [2]]])
    assert (prepared.how, prepared.proven_on) == ("reused", "cpu"), inside.said
    mate = next(Path(prepared.python).parent.parent.glob("lib/*/site-packages/launchmate/__init__.py"))
    # Each one's file is told: the large one is the image's, the other one is not, though the image has one, too.
    assert f"proven False 1.5 {toy} 1.0 {mate}" in inside.said
    assert (toy.stat().st_mtime_ns, toy.read_bytes()) == before


@pytest.mark.slow
def test_another_library_in_the_image_is_another_environment(inside):
    _, folder = inside.venv("python3", "launchtoy-1.5")
    first = inside.here()
    assert inside.here() == first
    assert inside.said == [f"ready: {first.python}"]
    toy = next(folder.glob("lib/*/site-packages/launchtoy/__init__.py"))
    os.utime(toy, (1, 1))
    second = inside.here()
    assert second.how == "reused"
    assert second.key != first.key


@pytest.mark.slow
def test_a_library_of_the_image_that_does_not_work_gives_way_to_one_that_is_installed(inside):
    _, folder = inside.venv("python3", "launchtoy-1.5")
    next(folder.glob("lib/*/site-packages/launchtoy/__init__.py")).write_text("raise ImportError('no libcudart')")
    prepared = inside.here()
    assert prepared.how == "built", inside.said
    said = "\n".join(inside.said)
    assert "no libcudart" in said
    assert "not reused on" in said
    assert [path.name for path in inside.folders] == [prepared.key]
    # What did not work is not tried again before the machine starts anew.
    assert inside.here() == prepared
    assert len(inside.said) == 1


def test_a_gpu_is_tried_once_after_every_start_of_the_machine(inside):
    inside.add("python3")
    inside.gpu()
    first = inside.here(boot="monday")
    assert (first.how, first.proven_on) == ("built", "gpu")
    assert any(line.startswith("proven True") for line in inside.said)
    assert inside.here(boot="monday") == first
    assert inside.said == [f"ready: {first.python}"]
    assert inside.here(boot="tuesday") == first
    assert [line.split()[:2] for line in inside.said] == [["proven", "True"]]
    # A GPU that fails now is no reason to keep it as proven, nor to take it from a run that works in it.
    with pytest.raises(Failed, match="out of memory"):
        inside.here(boot="wednesday", proof="import sys; sys.exit('CUDA out of memory')")
    assert Path(first.python).exists()
    assert inside.here(boot="wednesday") == first


def test_what_was_made_without_a_gpu_is_proved_on_the_first_one(inside):
    inside.venv("python3", "launchtoy-1.5")
    first = inside.here(boot="no-gpu mode")
    assert (first.how, first.proven_on) == ("reused", "cpu")
    inside.gpu()
    assert inside.here(boot="with a GPU") == first._replace(proven_on="gpu")
    assert not any("building" in line for line in inside.said)
    assert any(line.startswith("proven True") for line in inside.said)


def test_ready_starts_no_python_and_believes_nothing_that_changed(inside):
    python = inside.add("python3")
    prepared = inside.here()
    inside.add("python3", "echo started >>" + str(inside.workspace / "started"))
    os.utime(python)
    ready = lambda boot="boot", **more: environment.ready(str(inside.workspace), inside.recipe | more, boot)  # noqa: E731
    assert ready() == prepared
    assert not (inside.workspace / "started").exists()
    assert ready(boot="another") is None
    assert ready(requirements=["another"]) is None
    [chosen] = inside.workspace.glob("envs/chosen-*.json")
    content = chosen.read_text()
    for broken in ("", "[]", "{", content.replace('"boot": "boot"', '"boot": 7'), content.replace("rests_on", "rests")):
        chosen.write_text(broken)
        assert ready() is None
    chosen.write_text(content)
    assert ready() == prepared
    environment.forget(str(inside.workspace), inside.recipe)
    assert ready() is None
    # It is proved once more, and with another proof as well.
    inside.add("python3")
    assert inside.here().key == prepared.key
    assert any(line.startswith("proven") for line in inside.said)
    with pytest.raises(Failed):
        inside.here(proof="raise SystemExit('no')")


def test_what_is_removed_from_the_image_makes_it_not_ready(inside):
    _, folder = inside.venv("python3", "launchtoy-1.5", "launchmate-3.0")
    needs = [["launchtoy", [1, 0], [2]], ["launchmate", [1, 0], [2]]]
    first = inside.here(needs=needs)
    assert first.how == "reused"
    next(folder.glob("lib/*/site-packages/launchmate-3.0.dist-info")).rename(folder / "gone")
    assert inside.here(needs=needs) == first
    assert any(line.startswith("proven") for line in inside.said)


def test_a_removal_that_was_cut_off_leaves_nothing_that_counts(inside):
    inside.add("python3")
    first = inside.here()
    folder = Path(first.python).parent.parent
    # As rmtree leaves it where it can't go on, once the marker is gone.
    environment._remove(str(folder / "nothing"))
    (folder / "ready.json").unlink()
    next(folder.glob("lib/*/site-packages/launchtoy/__init__.py")).unlink()
    assert inside.here() == first
    assert any("building" in line for line in inside.said)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["USER=1", "TARGET=/nowhere", "PREFIX=/nowhere", "DRY_RUN=1", "REQUIRE_HASHES=1",
                                  "NO_BINARY=:all:", "CONSTRAINT=/nowhere/c.txt", "NO_CACHE_DIR=1"])  # fmt: skip
def test_what_somebody_set_for_pip_does_not_lead_it_astray(inside, monkeypatch, name):
    inside.add("python3")
    variable, value = name.split("=")
    monkeypatch.setenv(f"PIP_{variable}", value)
    prepared = inside.here()
    assert Path(prepared.python).is_relative_to(inside.workspace), inside.said


def test_nothing_of_the_current_folder_is_run(inside, tmp_path, monkeypatch):
    """It may be one that came from a host."""
    inside.add("python3")
    here = tmp_path / "artifacts"
    here.mkdir()
    for name in ("pip", "venv", "json", "ensurepip"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); raise SystemExit(9)")
    monkeypatch.chdir(here)
    assert inside.here().how == "built"
    assert not (tmp_path / "ran").exists()


def test_a_password_in_an_address_is_not_told(inside, monkeypatch):
    talk = 'case $* in *" install "*) echo "looking at http://me:s3#cret@127.0.0.1:9/x"; exit 3 ;; esac; '
    inside.add("python3", talk + 'exec "{python}" "$@"')
    with pytest.raises(Failed) as failure:
        inside.here()
    assert "cret" not in "".join([*inside.said, str(failure.value)])
    assert any("http://***@127.0.0.1:9/x" in line for line in inside.said)


@pytest.mark.slow
def test_wheels_are_asked_for_what_will_be_built(inside):
    _, folder = inside.venv("python3", "launchtoy-1.5")
    wanted = lambda: environment.wanted(str(inside.workspace), inside.recipe, "boot")  # noqa: E731
    lacks = lambda: environment.lacks(str(inside.workspace), inside.recipe, "boot")  # noqa: E731
    assert wanted()["requirement"] == ""  # beside the image's own
    assert lacks() == "beside"
    next(folder.glob("lib/*/site-packages/launchtoy/__init__.py")).write_text("raise ImportError('no libcudart')")
    os.utime(next(folder.glob("lib/*/site-packages/launchtoy/__init__.py")), (5, 5))
    with pytest.raises(Failed):
        inside.here(requirements=["nothing-of-the-kind"])
    assert wanted()["requirement"] == "launchtoy==1.0"  # that one does not work
    assert lacks() == "all"
    assert inside.here().how == "built"
    assert wanted() is None
    assert lacks() == ""


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("", "torch==2.13.0"),
        ("580.65.06", "torch==2.13.0"),
        ("610.10", "torch==2.13.0"),
        ("579.99", "torch==2.10.0"),
        ("570.86.10", "torch==2.10.0"),
        ("550.54.15", "torch==2.6.0"),
        ("525.60.13", "torch==2.6.0"),
        ("520.61.05", None),
        ("470.82", None),
    ],
)
def test_the_driver_decides_which_torch(driver, expected):
    kept = recipes.recipe()["kept"]
    if expected:
        assert environment.row_for(Accelerator(1, driver), kept) == expected
    else:
        with pytest.raises(Failed, match=rf"{driver} is too old .* takes >= 525"):
            environment.row_for(Accelerator(1, driver), kept)


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("nothing of the kind 1.2", ""),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path, text, driver):
    (tmp_path / "version").write_text(text)
    assert accelerator.driver_of(str(tmp_path / "version")) == driver


@pytest.mark.parametrize("said", ["", "No devices were found", "echo Permission denied; exit 0", "exit 9"])
def test_only_a_line_that_names_a_gpu_is_one(inside, said):
    path = inside.bin / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{said or 'true'}\n")
    path.chmod(0o755)
    assert accelerator.find("/nowhere").gpus == 0
    inside.gpu("570.1")
    assert accelerator.find("/nowhere") == Accelerator(1, "570.1")


def test_pips_settings_reach_uv():
    lines = [
        "global.index-url='https://mirror.example/simple'",
        "user.index-url='https://other.example/simple'",
        ":env:.extra-index-url='https://a.example/simple file:///not/there'",
        "global.trusted-host='mirror.example'",
        "global.find-links='/not/there\\n/'",
        ":env:.default-timeout='180'",
        "install.no-index='1'",
        "a broken line",
        "global.cert=os.system('x')",
    ]
    found = installer.parsed(lines)
    assert found["index-url"] == "https://other.example/simple"
    assert found["no-index"] == "1"
    assert installer.uv_variables(found) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://other.example/simple",
        "UV_INDEX": "https://a.example/simple",
        "UV_FIND_LINKS": "/",
        "UV_INSECURE_HOST": "mirror.example",
        "UV_HTTP_TIMEOUT": "180",
    }


def closure(roots, without):
    """Canonical names of all that these distributions require, on Linux or on Windows."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    platforms = ({"extra": ""}, {"extra": "", "sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"})
    seen, waiting = set(), [canonicalize_name(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name in seen or name in without:
            continue
        seen.add(name)
        try:
            lines = requires(name) or ()
        except PackageNotFoundError:  # of the other platform
            continue
        waiting += [
            canonicalize_name(need.name)
            for need in map(Requirement, lines)
            if need.marker is None or any(need.marker.evaluate(platform) for platform in platforms)
        ]
    return seen


@pytest.mark.parametrize("at_home", [False, True])
def test_what_comes_beside_torch_is_complete_and_pinned(at_home):
    from packaging.utils import canonicalize_name

    recipe = recipes.recipe(at_home=at_home)
    wanted = closure([name for name, _, _ in recipe["needs"]], {"torch"})
    assert {canonicalize_name(line.split("==")[0]) for line in recipe["beside"]} == wanted
    pinned = {canonicalize_name(line.split("==")[0]) for line in recipe["constraints"]}
    assert closure([name for name, _, _ in recipe["needs"]], set()) - pinned == {"torch"}


@pytest.mark.parametrize("tracker", recipes.TRACKERS)
def test_what_a_tracker_takes_is_complete_and_pinned(tracker):
    from packaging.utils import canonicalize_name

    recipe = recipes.recipe(trackers=[tracker])
    wanted = closure([name for name, _, _ in recipe["needs"]], {"torch"})
    assert {canonicalize_name(line.split("==")[0]) for line in recipe["beside"]} == wanted
    assert any(tracker in line for line in recipe["requirements"])


def test_transformers_asks_for_no_newer_torch_than_we_do():
    from transformers.dependency_versions_table import deps

    [low] = [low for name, low, _ in recipes.recipe()["needs"] if name == "torch"]
    assert low == list(interpreter.numbers(deps["torch"].partition(">=")[2]))
    assert min(interpreter.numbers(row.partition("==")[2]) for _, row in recipes.TORCH_ROWS) >= tuple(low)


def test_versions_of_the_training_are_taken_over():
    recipe = recipes.recipe(at_home=True, exactly={"transformers": "5.21.1", "peft": "0.21.0"})
    assert "transformers==5.21.1" in recipe["beside"]
    assert "peft==0.21.0" in recipe["constraints"]
    assert ["transformers", [5, 21, 1], [5, 21, 2]] in recipe["needs"]
    assert recipes.allows("transformers", "5.21.1")
    assert not recipes.allows("transformers", "6.0")
    assert not recipes.allows("transformers", "4.57.0")
    assert not recipes.allows("nothing", "1.0")
