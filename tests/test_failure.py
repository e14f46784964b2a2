"""The table of failures: every row by a signal seen in the wild, and by the real thing where that can be made here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import failure
from remote.errors import CommandFailed
from remote.host import Completed
from remote.local_host import LocalHost

CONNECTING = [
    ("too_many_tries", "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures"),
    ("login_refused", "ProxyCommand: root@jump: Permission denied (publickey,password)."),
    ("host_key_changed", "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! Host key verification failed."),
    ("throttled", "Exceeded MaxStartups"),
    ("throttled", "kex_exchange_identification: read: Connection reset by peer"),
    ("throttled", "Error reading SSH protocol banner"),
    ("throttled", "Connection reset by peer"),
    ("throttled", "[WinError 10054] An existing connection was forcibly closed: connection reset"),
    ("refused", "Connection refused"),
    ("refused", "[WinError 10061] No connection could be made because the target machine actively refused it"),
    ("no_such_name", "Name or service not known"),
    ("no_such_name", "[Errno 11001] getaddrinfo failed"),
    ("no_such_name", "nodename nor servname provided, or not known"),
    ("timed_out", "timed out"),
    ("timed_out", "No route to host"),
    ("timed_out", "Network is unreachable"),
    ("not_ssh", "Invalid packet blocking"),
    ("not_ssh", "what it sends can't be understood, InvalidTag"),
    ("no_commands", "exec request failed on channel 0"),
    ("no_commands", "PTY allocation request failed on channel 0"),
    ("no_commands", "subsystem request failed on channel 0"),
    ("other_machine", "another machine"),
]
RUNNING = [
    ("row_too_long", "error: out of memory with a single row of 4096 tokens"),
    ("missing_module", "ModuleNotFoundError: No module named 'peft'"),
    ("cpu_out_of_memory", "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ("cpu_out_of_memory", "MemoryError"),
    ("diverged", "error: loss is not finite at step 31"),
    ("diverged", "error: the frozen base gives features that are not finite"),
    ("cuda_does_not_fit", "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    ("cuda_out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."),
    ("cuda_does_not_fit", "CUDA error: no kernel image is available for execution on the device"),
    ("cuda_does_not_fit", "CUDA failure 804: forward compatibility was attempted on non supported HW"),
    ("cuda_does_not_fit", "The NVIDIA driver on your system is too old (found version 11040)."),
    ("cuda_does_not_fit", "NVIDIA RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch"),
    ("disk_full", "OSError: [Errno 28] No space left on device"),
    ("disk_full", "write failed: Disk quota exceeded"),
    ("no_gpu", "No devices were found"),
    ("no_gpu", "RuntimeError: No CUDA GPUs are available"),
    ("no_gpu", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
    ("download_stalled", "huggingface_hub.errors.LocalEntryNotFoundError: An error happened"),
    ("download_stalled", "ReadTimeoutError: HTTPSConnectionPool(host='x', port=443): Read timed out."),
    ("download_stalled", "ERROR: Could not find a version that satisfies the requirement torch==2.13.0"),
    ("not_on_path", "bash: conda: command not found"),
    ("not_on_path", "exit 127"),
    ("killed", "running: killed (signal 9; out of memory, or by hand)"),
    ("killed", "ended with status 137"),
    ("machine_restarted", "the machine restarted; nothing of the run is left running"),
]


@pytest.mark.parametrize(("code", "signal"), CONNECTING)
def test_what_connections_say(code: str, signal: str) -> None:
    row = failure.while_connecting(signal)
    assert row is not None
    assert row.code == code


@pytest.mark.parametrize(("code", "signal"), RUNNING)
def test_what_runs_say(code: str, signal: str) -> None:
    row = failure.while_running(f"step 7 loss 0.3\n{signal}\n")
    assert row is not None
    assert row.code == code


def test_every_row_is_covered_explained_and_has_a_next_step() -> None:
    for table, covered in ((failure.CONNECTING, CONNECTING), (failure.RUNNING, RUNNING)):
        assert {row.code for row in table} == {code for code, _ in covered}
        for row in table:
            assert len(row.meaning) > 20
            assert "launch " in row.todo, row.code
    for row in (*failure.RUNNING, *failure.ENDINGS):
        assert failure.ended(row.code) is row
        assert row.title
        assert row.after_a_run(host="box", run="run-1").startswith("launch "), row.code
        assert not {"HOST", "RUN"} & set(row.after_a_run(host="box", run="run-1").split())


def test_names_are_put_in_and_quoted() -> None:
    row = failure.while_connecting("Connection refused")
    assert row is not None
    assert "launch host rebind 'ssh -p 1 root@h' " in row.next_command(host="ssh -p 1 root@h")
    assert "launch host rebind HOST " in row.next_command()


def test_an_ordinary_log_means_nothing() -> None:
    log = "downloaded 7 files from huggingface.co\nstep 137 of 1270\nevaluating\nno warnings\n"
    assert failure.while_running(log) is None


@given(st.text(max_size=300))
def test_any_text_is_explained_or_not(text: str) -> None:
    for row in (failure.while_connecting(text), failure.while_running(text)):
        assert row is None or row.next_command(host=text or "x")


def test_a_long_text_is_read_from_its_end() -> None:
    assert failure.while_running("x" * 10_000_000 + " CUDA out of memory") is not None


@pytest.mark.parametrize(
    ("script", "code"),
    [("exec no-such-program", "not_on_path"), ("kill -9 $$", "killed"), ("cat /dev/zero >/dev/full", "disk_full")],
)
def test_a_command_that_failed_says_what_to_do(script: str, code: str) -> None:
    done = LocalHost().run(["sh", "-c", script])
    with pytest.raises(CommandFailed) as failed:
        done.check()
    row = next(row for row in failure.RUNNING if row.code == code)
    assert failed.value.hint == row.next_command()


def test_a_failure_without_a_meaning_has_no_hint() -> None:
    with pytest.raises(CommandFailed) as failed:
        Completed(("x",), 1, b"", b"no such luck").check()
    assert failed.value.hint == ""
