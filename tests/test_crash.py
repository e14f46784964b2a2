"""Why a run ended badly: a table of what is seen in the wild, and real processes that end so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import conclusion
from remote import crash, runs
from remote.agent import Agent
from remote.crash import Asked, Card
from remote.local_host import LocalHost
from tests.connected import eventually, private_tmux, tmux
from tests.test_runs import FILES, SUCCEED, Place

ASKED = Asked("box", "toy-aaaaaaaa", batch_size=32, max_length=256, learning_rate=2e-4)
GIB = 1024**3
TRACEBACK = """Traceback (most recent call last):
  File "/root/envs/x/lib/python3.11/site-packages/jobs/__main__.py", line 150, in main
    outcome = VERBS[options.verb](options.run, options)
"""
STEPS = "".join(f"step {n}/400  epoch 0.{n}  loss 0.5{n}  lr 2.0e-04  812 rows/s  ETA 3 s\n" for n in range(10, 60))
PLENTY = {"limit_bytes": 64 * GIB, "used_bytes": 9 * GIB, "peak_bytes": 9 * GIB, "oom_kills": 0}
NEARLY = {"limit_bytes": 8 * GIB, "used_bytes": 7.9 * GIB, "peak_bytes": 7.9 * GIB, "oom_kills": 0}
BETWEEN = {"limit_bytes": 8 * GIB, "used_bytes": 6.6 * GIB, "peak_bytes": 6.6 * GIB, "oom_kills": 0}
LARGEST = {**PLENTY, "largest_process_bytes": 63 * GIB}
COUNTED = {**PLENTY, "oom_kills": 1}


def disk(free=50e9, inodes=1e6, name="run", total=100e9):
    return {"name": name, "path": f"/{name}", "total_bytes": total, "least_free_bytes": free, "free_bytes": free,
            "total_inodes": 2e6, "least_free_inodes": inodes}  # fmt: skip


ROOMY = [disk()]
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB"
ENOSPC = "OSError: [Errno 28] No space left on device"
FAILED = "running: ended with status 1"
GPU = {"name": "NVIDIA GeForce RTX 4090", "used_bytes": 20 * GIB, "total_bytes": 24 * GIB}

# cause, reason, what was measured, the end of the log, a piece of the evidence
TABLE: list[tuple[str | None, str, dict[str, Any], str, str]] = [
    ("cuda_out_of_memory", FAILED, {"step": 41, "steps": 400}, f"{STEPS}{TRACEBACK}{OOM}", "last step 41 of 400"),
    ("cuda_out_of_memory", FAILED, {"gpus": [{**GPU, "used_bytes": 300e6}]}, f"{TRACEBACK}{OOM}", "CUDA out of memory"),
    ("gpu_taken", FAILED, {"gpus": [GPU]}, f"{TRACEBACK}{OOM}", "RTX 4090: others hold 20.0 of 24.0 GiB"),
    ("cuda_out_of_memory", FAILED, {"gpus": [GPU], "step": 9, "steps": 10}, f"{TRACEBACK}{OOM}", "others hold"),
    ("cuda_out_of_memory", FAILED, {}, f"{TRACEBACK}[rank1]: {OOM}\n" + "W1126 torchrun says so\n" * 8, "rank1"),
    ("row_too_long", "out of memory with a single row of 9000 tokens", {}, STEPS, "9000 tokens"),
    ("cpu_out_of_memory", FAILED, {"memory": NEARLY}, f"{TRACEBACK}MemoryError", "7.90 of 8.00 GiB"),
    ("memory_limit", "running: killed (signal 9; out of memory, or by hand)", {"memory": NEARLY}, STEPS, "(99%)"),
    ("memory_limit", "", {"exit_code": 137, "memory": COUNTED}, STEPS, ", 1 memory kills by the kernel"),
    ("memory_limit", "", {"exit_code": 137, "memory": LARGEST}, STEPS, "63.00 of 64.00 GiB"),
    ("memory_limit", "training on 2 GPUs ended with status -9: the lines above say why",
     {"exit_code": 1, "memory": NEARLY}, STEPS, "(99%)"),
    ("killed_by_hand", "", {"exit_code": 137, "phase": "running", "memory": PLENTY, "step": 59, "steps": 400}, STEPS,
     "exit status 137 (signal 9) while running, last step 59 of 400"),
    ("killed", "", {"exit_code": 137, "memory": BETWEEN}, STEPS, "(82%)"),
    ("killed", "running: killed (signal 9; out of memory, or by hand)", {}, STEPS, "exit status 137"),
    ("killed_by_hand", "", {"exit_code": 137, "memory": PLENTY}, f"{STEPS}{OOM}\n", "(14%)"),
    ("diverged", "loss is not finite at step 31", {"code": "job_failed", "step": 30, "steps": 400}, STEPS, "step 31"),
    ("training_futile", "4 of 56 lora_B matrices get no gradient in the first step, first layers.0: the head would",
     {"code": "training_futile"}, "error: 4 of 56 lora_B\nhint: other target_modules", "hint: other target_modules"),
    ("data_invalid", "train.jsonl: not the file that was submitted (sha256 differs)", {"code": "data_invalid"},
     "error: train.jsonl: not the file that was submitted (sha256 differs)\nhint: submit the run again", "sha256"),
    # A label of somebody's data, which the error quotes.
    ("data_invalid", "test.jsonl: unknown label 'CUDA out of memory'", {"code": "data_invalid"}, "", "unknown label"),
    ("disk_full", FAILED, {"disks": [disk(free=0)]}, f"{TRACEBACK}{ENOSPC}: 'checkpoint'", "/run (run): 0.0 MB free"),
    ("disk_full", FAILED, {"disks": ROOMY}, f"{TRACEBACK}{ENOSPC}", "50.0 GB free"),
    ("disk_full", FAILED, {}, f"{TRACEBACK}{ENOSPC}", "Errno 28"),
    ("disk_full", FAILED, {"disks": [disk(free=0)]}, "cp: error writing 'x': No space left on device", "cp: error"),
    ("disk_full", FAILED, {"disks": [disk(free=0)]}, STEPS, "/run (run): 0.0 MB free"),
    ("inodes_full", FAILED, {"disks": [disk(inodes=0)]}, f"{TRACEBACK}{ENOSPC}", "0 inodes free"),
    ("cuda_does_not_fit", FAILED, {}, f"{TRACEBACK}RuntimeError: CUDA error: no kernel image is available", "kernel"),
    ("no_gpu", FAILED, {}, f"{TRACEBACK}RuntimeError: No CUDA GPUs are available", "No CUDA GPUs"),
    ("missing_module", FAILED, {}, f"{TRACEBACK}ModuleNotFoundError: No module named 'peft.tuners'", "peft.tuners"),
    ("missing_module", FAILED, {}, "/root/python: Error while finding\nerror: No module named jobs", "missing: jobs"),
    ("download_stalled", "no environment: ERROR: Could not find a version that satisfies torch", {}, "", "torch"),
    ("download_stalled", FAILED, {}, f"{TRACEBACK}requests.exceptions.ReadTimeout: Read timed out.", "timed out"),
    ("segfault", "running: ended by signal 11", {}, STEPS, "exit status 139 (signal 11, SIGSEGV)"),
    ("bus_error", "", {"exit_code": 135, "disks": [disk(free=0, name="shared memory", total=64e6)]}, STEPS, "shared"),
    ("not_on_path", "preparing: ended with status 127", {}, "launch: conda: No such file or directory", "conda"),
    ("supervisor_killed", "supervisor killed", {}, STEPS, "step 59/400"),
    # What was survived, or is somebody's text, is no cause.
    (None, FAILED, {"disks": ROOMY}, f"{OOM}\n{STEPS}", ""),
    (None, FAILED, {"disks": ROOMY}, f"{TRACEBACK}{OOM}\nout of memory: going on with 512 tokens\n{STEPS}", ""),
    (None, FAILED, {"disks": ROOMY}, f"{STEPS}row 7: 'No space left on device', says my phone\n", ""),
    (None, FAILED, {"disks": ROOMY}, f"{STEPS}row 8: 'CUDA out of memory' is all it says\n", ""),
    (None, FAILED, {"disks": ROOMY}, f"{STEPS}row 9: killed by exit 137, command not found\n", ""),
    (None, FAILED, {"disks": [disk(free=1e6, total=4e6)]}, STEPS, ""),  # a small one, a quarter free
    (None, FAILED, {"disks": [disk(free=0, name="home")]}, STEPS, ""),  # another one, and nobody complained
    (None, "verification: as_trained", {}, STEPS, ""),
    (None, FAILED, {}, "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "reason", "measured", "log", "piece"), TABLE)
def test_causes(cause, reason, measured, log, piece):
    card = crash.explain("failed", reason, measured, log, ASKED)
    assert (card.cause if card else None) == cause
    if card:
        assert any(piece in line for line in card.evidence), card.evidence
        assert 0 < len(card.evidence) <= 6
        assert card.next.startswith("launch ")
        assert not {"HOST", "RUN", "BATCH", "LENGTH", "RATE"} & set(card.next.split())


def test_a_card_may_also_come_from_the_log_that_was_measured():
    card = crash.explain("failed", FAILED, {"tail": [*TRACEBACK.splitlines(), OOM]}, "another log", ASKED)
    assert card and card.cause == "cuda_out_of_memory"


@pytest.mark.parametrize(
    ("state", "reason", "cause"),
    [
        ("lost", "the machine restarted; nothing of the run is left running", "machine_restarted"),
        ("stopped", "asked to", "stopped_by_hand"),
        ("stopped", "interrupted on the host", "stopped_by_hand"),
        ("stopped", "time limit", "time_limit"),
        ("stopped", "time limit; its supervisor had to be killed", "time_limit"),
    ],
)
def test_endings_that_no_error_brought(state, reason, cause):
    card = crash.explain(state, reason, {"exit_code": 137, "memory": NEARLY}, f"{TRACEBACK}{OOM}", ASKED)
    assert card and (card.cause, card.next) == (cause, "launch resume toy-aaaaaaaa")


def test_the_next_command_has_the_names_and_smaller_numbers():
    def next_of(reason):
        card = crash.explain("failed", reason, {}, "", ASKED)
        return card and card.next

    assert next_of(OOM) == "launch train SPEC --host box --train-batch-size 16"
    assert next_of("out of memory with a single row of 9 tokens") == "launch train SPEC --host box --max-length 128"
    assert next_of("loss is not finite at step 1") == "launch train SPEC --host box --learning-rate 5.0e-05"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("exit_code", "memory", "disks", "gpus", "tail", "step", "steps", "phase", "code")


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.text(max_size=200), st.sampled_from([FAILED, OOM, ENOSPC, ""]))
def test_whatever_a_host_measures_is_explained_or_not(measured, log, reason):
    card = crash.explain("failed", reason, measured, log, ASKED)
    assert card is None or all(isinstance(line, str) for line in card.evidence)


def test_what_left_no_checkpoint_is_not_to_be_resumed():
    for can_resume, verb in ((True, "resume"), (False, "retry")):
        card = crash.explain("stopped", "time limit", {}, "", replace(ASKED, can_resume=can_resume))
        assert card.next == f"launch {verb} toy-aaaaaaaa"


def test_a_card_fits_a_terminal_of_eighty_columns():
    card = Card("x", "the title of it", "and what it means, " * 20, ("word " * 32, "x" * 160), "launch ps")
    assert max(map(len, conclusion.lines(card))) <= 80


# Real ends of real processes.  The supervisor writes down what it measured, and the laptop asks for that.


@pytest.fixture
def place(tmp_path, monkeypatch):
    with private_tmux() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("TMUX", raising=False)
        how = "tmux" if shutil.which("tmux") else "setsid"
        yield Place(Agent(LocalHost(), workspace=str(tmp_path / "work")), how, variables["TMUX_TMPDIR"])


def card_of(place, run_id):
    state = place.end(run_id)
    found = runs.crash(place.agent, run_id)
    return crash.explain(state.state, state.reason, found.measured, found.log_tail, ASKED), found


@pytest.mark.parametrize(
    ("phase", "cause", "status"),
    [
        ("echo step 1; kill -9 $$", "killed_by_hand", 137),
        ([sys.executable, "-ISc", "import ctypes; ctypes.string_at(0)"], "segfault", 139),
        ([sys.executable, "-ISc", "import no_such_package.deeper"], "missing_module", 1),
        (["no-such-program"], "not_on_path", 127),
        ("cat /dev/zero >/dev/full", None, 1),  # a disk that has room, whatever cat says
        ([sys.executable, "-ISc", "open('/dev/full', 'w', buffering=1).write('x\\n')"], "disk_full", 1),
        ("exit 3", None, 3),
    ],
)
def test_real_ends(place, phase, cause, status):
    card, found = card_of(place, place.submit(phase))
    assert (card.cause if card else None) == cause
    assert found.measured["exit_code"] == status
    assert found.measured["phase"] == "running"
    assert found.measured["memory"]["limit_bytes"] > found.measured["memory"]["used_bytes"] > 0
    assert {disk["name"] for disk in found.measured["disks"]} >= {"run"}


def test_a_run_that_ended_well_leaves_no_crash(place):
    run_id = place.submit("echo fine", SUCCEED)
    place.end(run_id)
    found = runs.crash(place.agent, run_id)
    assert (found.measured, found.log_tail) == ({}, "fine\n")


def test_what_is_kept_of_a_crash_is_small_whatever_was_printed(place):
    run_id = place.submit([sys.executable, "-ISc", "for n in range(900): print('x' * 1000)\nexit(3)"])
    place.end(run_id)
    content = (place.root(run_id) / "crash.json").read_bytes()
    assert len(content) < 30_000
    assert len(json.loads(content)["tail"]) == 50


@contextlib.contextmanager
def small_disk(folder, options):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "small", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs here: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_end_of_a_log_of_several_files_is_the_end(place):
    run_id = place.submit("n=0; while [ $n -lt 200 ]; do echo line $n; n=$((n+1)); done; exit 1",
                          log={"segment_bytes": 300, "keep_bytes": 10_000})  # fmt: skip
    assert place.end(run_id).state == "failed"
    assert runs.crash(place.agent, run_id).log_tail.endswith("line 198\nline 199\n")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="mounts a disk")
@pytest.mark.parametrize(
    ("options", "fill", "cause"),
    [
        ("size=4m", "open('big', 'wb').write(bytes(9 << 20))", "disk_full"),
        ("size=40m,nr_inodes=100", "for n in range(200): open(f'f{n}', 'w').close()", "inodes_full"),
    ],
)
def test_a_real_disk_that_is_full(place, tmp_path, options, fill, cause):
    # What fills it is gone by the time it is over, as a checkpoint in the making is.
    program = (
        f"import os, time\ntime.sleep(0.5)\ntry:\n  {fill}\nfinally:\n  time.sleep(5.5)\n  os.system('rm -f big f*')"
    )
    with small_disk_under_runs(tmp_path, options):
        run_id = place.submit([sys.executable, "-ISc", program])
        card, _ = card_of(place, run_id)
        assert card and card.cause == cause
        assert any("at its fullest" in line for line in card.evidence)


@contextlib.contextmanager
def small_disk_under_runs(tmp_path, options):
    folder = tmp_path / "work" / "runs"
    folder.mkdir(parents=True)
    with small_disk(folder, options):
        yield


CGROUP = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def memory_group(limit_bytes):
    """A memory group with that limit and nobody in it."""
    group = CGROUP / f"launch-tests-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip("no memory group can be made here")
    try:
        yield group
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text().split())
        group.rmdir()


# Who submits is in the group, and so is all that it starts; these tests alone may be larger than the limit.
SUBMIT = """
import json, os, sys
group, workspace, plan = sys.argv[1:]
open(os.path.join(group, "cgroup.procs"), "w").write(str(os.getpid()))
from remote import runs
from remote.agent import Agent
from remote.local_host import LocalHost
runs.submit(Agent(LocalHost(), workspace=workspace), json.loads(plan), links=[], documents={})
"""


def test_a_real_kill_for_memory(place):
    place.agent.call("states", {"run_ids": []})
    used = 400 * 1024 * 1024
    run_id = f"memory-{'a' * 8}"
    job = [sys.executable, "-ISc", f"x = bytearray({used})\nfor n in range(len(x)): x[n] = 1"]
    plan = {"run_id": run_id, "name": "memory", "files": FILES, "env": {},
            "phases": [{"state": "running", "argv": job}]}  # fmt: skip
    with memory_group(used) as group:
        argv = [sys.executable, "-c", SUBMIT, str(group), place.agent.workspace, json.dumps(plan)]
        subprocess.run(argv, check=True, cwd=Path(__file__).parent.parent)
        card, found = card_of(place, run_id)
        if place.how == "tmux":
            tmux(place.tmux_folder, "kill-server")  # it was started in the group, too
    assert found.measured["memory"]["oom_kills"] >= 1
    assert found.measured["memory"]["limit_bytes"] == used
    assert card and card.cause == "memory_limit"
    assert any("GiB" in line for line in card.evidence)
