"""What a failure means and what to do next: the signals that rented machines give, each explained in a sentence.

A signal is whatever tells of a failure: the words of an exception, the last lines of a log, `exit 137`.  The table is
all there is; the first row that matches counts.  Nothing here is ever run or deleted: a next step is a command to type.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TypeVar

from remote.errors import RemoteError, Unreachable

SIGNAL_LIMIT = 64 * 1024
E = TypeVar("E", bound=RemoteError)


@dataclass(frozen=True)
class Failure:
    """One row: `code` for scripts, what it means, the command to type (HOST, RUN stand for names), and whether it may
    pass by itself within seconds.  Where a run can end so: a `title`, and `command`, the one to type then."""

    code: str
    signal: re.Pattern[str]
    meaning: str
    todo: str
    passing: bool = False
    title: str = ""
    command: str = ""

    def next_command(self, *, host: str = "", run: str = "") -> str:
        """The command, with the names that are known."""
        return _named(self.todo, host, run)

    def after_a_run(self, *, host: str, run: str) -> str:
        """The one command for whoever's run ended so."""
        return _named(self.command or self.todo, host, run)


def _named(said: str, host: str, run: str) -> str:
    for word, name in (("HOST", host), ("RUN", run)):
        if name:
            said = re.sub(rf"\b{word}\b", lambda _, name=name: shlex.quote(name), said)  # type: ignore[misc]
    return said


def _row(
    code: str, signal: str, meaning: str, todo: str, *, passing: bool = False, title: str = "", command: str = ""
) -> Failure:
    return Failure(code, re.compile(signal, re.IGNORECASE), meaning, todo, passing, title, command)


def _measured(code: str, title: str, meaning: str, command: str) -> Failure:
    """A row that figures or a result tell, and no words."""
    return Failure(code, re.compile("(?!)"), meaning, command, title=title)


FRESH_LINE = 'copy a fresh login line from the console: launch host rebind HOST "ssh -p PORT root@ADDRESS"'

# Specific before general: a throttled login also ends in a reset, and a name that is not known also times out.
CONNECTING = (
    _row(
        "too_many_tries",
        r"too many authentication failures",
        "the server counts every key and password that is offered, and hung up",
        'name the one key: launch host add HOST "ssh -i ~/.ssh/KEY -p PORT root@ADDRESS"',
    ),
    _row(
        "login_refused",
        r"permission denied|authentication failed|refused every key",
        "the password was reset, or the key was added after the machine had booted",
        "copy the password from the console again, then: launch host probe HOST",
    ),
    _row(
        "host_key_changed",
        r"host identification has changed|host key verification failed|host key changed",
        "it was rebuilt, or the address belongs to another tenant's machine by now",
        "only if the console says it was rebuilt: launch host add HOST LOGIN --replace-key FINGERPRINT",
    ),
    _row(
        "throttled",
        r"maxstartups|kex_exchange_identification|reading ssh protocol banner|connection reset|connection closed"
        r"|broken pipe|negotiation failed|server connection dropped|not allowed at this time|eoferror",
        "its gateway turns logins away that come too fast, or sshd is just starting",
        "wait a minute, then: launch host probe HOST",
        passing=True,
    ),
    _row(
        "refused",
        r"connection refused|actively refused",
        "nothing listens there: it is off, still booting, or its port changed at the last power-on",
        FRESH_LINE,
        passing=True,
    ),
    _row(
        "no_such_name",
        r"name or service not known|temporary failure in name resolution|getaddrinfo failed|nodename nor servname"
        r"|no address associated|no such host|name does not resolve",
        "no name server knows that host name, or this machine is offline",
        "check the host name in the login line: launch host show HOST",
    ),
    _row(
        "timed_out",
        r"timed out|timeout|no route to host|network is unreachable|host is down",
        "nobody answers: it is off, its port changed, or a network in between drops the packets",
        FRESH_LINE,
    ),
    _row(
        "not_ssh",
        r"invalid packet|incompatible ssh|no acceptable|indecipherable protocol|mismatched mac|can't be understood",
        "what answers there does not speak SSH as it should: another service, or a broken line",
        "check the port in the login line: launch host show HOST",
    ),
    _row(
        "no_commands",
        r"exec request failed|pty (?:allocation )?request failed|subsystem request failed|no sessions|channel closed",
        "it lets people log in but runs no commands for programs: RunPod's SSH proxy, or a login that starts tmux",
        "RunPod: use the login line for SSH over exposed TCP; vast.ai: touch ~/.no_auto_tmux there; "
        "then: launch host probe HOST",
    ),
    _row(
        "other_machine",
        r"another machine",
        "the address leads to another machine than the one on record: recycled, rebuilt, or renamed",
        'launch host rebind HOST "ssh -p PORT root@ADDRESS"',
    ),
)
LESS_AT_ONCE = "launch train SPEC --host HOST --train-batch-size BATCH"
RUNNING = (
    _row(
        "row_too_long",
        r"out of memory with a single row",
        "not even one text of that length fits into the memory beside the model",
        "launch train SPEC --host HOST with a smaller --max-length",
        title="out of memory with a single text",
        command="launch train SPEC --host HOST --max-length LENGTH",
    ),
    _row(
        "cuda_out_of_memory",
        r"cuda out of memory|outofmemoryerror|cublas_status_alloc_failed",
        "the GPU's memory is full: before the first step another process holds it, later the batch is too large",
        "launch host probe HOST, then train again with a smaller --train-batch-size or --max-length",
        title="the GPU's memory is full",
        command=LESS_AT_ONCE,
    ),
    _row(
        "cuda_does_not_fit",
        r"no kernel image is available|cuda (?:failure|error):? 804|forward compatibility was attempted"
        r"|driver (?:version )?(?:on your system )?is (?:too old|insufficient)|sm_\d+ is not compatible"
        r"|libcu\w+\.so[.\d]*: cannot open shared object",
        "this torch was not built for this GPU, or the driver is older than torch needs",
        "launch host probe HOST shows GPU and driver: choose an image with a newer PyTorch or driver",
        title="torch does not fit this GPU or its driver",
        command="launch host probe HOST",
    ),
    _row(
        "disk_full",
        r"no space left on device|errno 28\b|disk quota exceeded",
        "the disk is full, in bytes or in inodes; mostly old checkpoints, the model cache or the trash",
        "launch exec HOST -- sh -c 'df -h; df -i; du -xsh ~/.cache/huggingface ~/.local/share/Trash "
        "/root/miniconda3/pkgs /root/autodl-tmp/*'",
        title="the disk is full",
        command="launch clean HOST --dry-run",
    ),
    _row(
        "no_gpu",
        r"no devices were found|no cuda gpus are available|found no nvidia driver|nvidia-smi has failed",
        "there is no GPU at hand: the machine runs in its no-GPU mode (无卡模式), or none is attached",
        "start it with a GPU in the console, then: launch host probe HOST",
        title="no GPU",
        command="launch host probe HOST",
    ),
    _row(
        "missing_module",
        r"modulenotfounderror|no module named",
        "the Python environment lacks a package: it was changed, or only half of it was installed",
        "launch env prepare HOST",
        title="a Python package is missing",
    ),
    _row(
        "cpu_out_of_memory",
        r"defaultcpuallocator|can't allocate memory|cannot allocate memory|std::bad_alloc|\bmemoryerror\b",
        "the machine's memory, not the GPU's, is not enough",
        "launch host probe HOST shows the limit; train with a smaller --train-batch-size, or rent more memory",
        title="out of memory",
        command=LESS_AT_ONCE,
    ),
    _row(
        "diverged",
        r"(?:loss is|that are) not finite|\bloss\W{1,3}(?:is )?(?:nan|inf)\b",
        "the numbers left what the type can hold: mostly the learning rate is too high, or the type too small",
        "launch train SPEC --host HOST with a lower --learning-rate, or --bf16 no",
        title="the loss is not a number any more",
        command="launch train SPEC --host HOST --learning-rate RATE",
    ),
    _row(
        "download_stalled",
        r"localentrynotfounderror|read timed out|readtimeout|connecttimeout|max retries exceeded|incompleteread"
        r"|could not find a version that satisfies|offlinemodeisenabled|connection to \S*(?:hf|huggingface)\S* ",
        "a download stalled or was refused; that is mostly the network between the host and the hub or index",
        "launch host probe HOST --mirrors shows what it reaches; then the same command again",
        title="a download did not come",
        command="launch host probe HOST --mirrors",
    ),
    _row(
        "not_on_path",
        r"(?:exit|status) 127\b|command not found",
        "that program is not there, or not on the PATH of a shell that is not a login shell (no conda, no CUDA)",
        "give its full path, or: launch exec HOST -- bash -lc COMMAND",
        title="a program is missing",
        command="launch host probe HOST",
    ),
    _row(
        "killed",
        r"(?:exit|status) 137\b|signal 9\b|sigkill",
        "by hand, or by the platform because the container's memory limit was reached",
        "launch host probe HOST shows the limit; train with a smaller --train-batch-size, or rent more memory",
        title="killed",
        command="launch host probe HOST",
    ),
    _row(
        "machine_restarted",
        r"the machine restarted",
        "nothing of the run is left running; its files are still there",
        "launch logs RUN, then start it again: launch train SPEC --host HOST",
        title="the machine restarted",
        command="launch resume RUN",
    ),
)
# How a run can end that its words do not tell; the job's own codes are among them.
ENDINGS = (
    _measured(
        "memory_limit",
        "killed for its memory",
        "the container's memory limit was reached: then the kernel or the platform kills the largest process",
        LESS_AT_ONCE,
    ),
    _measured(
        "killed_by_hand",
        "killed by somebody, or something",
        "signal 9, with plenty of memory left: a person, a script, or the console ended the process",
        "launch resume RUN",
    ),
    _measured(
        "gpu_taken",
        "the GPU's memory was taken before the first step",
        "other processes hold it, not this run",
        "launch exec HOST -- nvidia-smi",
    ),
    _measured(
        "inodes_full",
        "the disk has no room for another file",
        "its inodes are used up, however many bytes are free: many small files, as in caches and old environments",
        "launch clean HOST --dry-run",
    ),
    _measured(
        "segfault",
        "a library crashed",
        "native code touched memory that is not its own: mostly packages that do not fit each other, or a faulty GPU",
        "launch resume RUN",
    ),
    _measured(
        "bus_error",
        "a library lost its memory",
        "mostly /dev/shm is full, through which processes hand each other data",
        "launch exec HOST -- df -h /dev/shm",
    ),
    _measured(
        "data_invalid",
        "data or base model can't be used",
        "the run looked at what it was given, and refused it",
        "launch check SPEC",
    ),
    _measured(
        "training_futile",
        "training would have brought nothing home",
        "going on would have cost money for an empty or useless adapter",
        "launch train SPEC --host HOST --target-modules all-linear",
    ),
    _measured(
        "time_limit",
        "the time limit was reached",
        "--max-hours was over, which counts from the submission on",
        "launch resume RUN",
    ),
    _measured(
        "supervisor_killed",
        "the run lost its supervisor",
        "the process that looked after it was killed from outside, and the run ended with it",
        "launch resume RUN",
    ),
    _measured(
        "stopped_by_hand",
        "stopped by hand",
        "somebody asked for it",
        "launch resume RUN",
    ),
)


def ended(code: str) -> Failure:
    """The row for a run that ended so.  Raises KeyError for a code that is no ending of a run."""
    return {row.code: row for row in (*RUNNING, *ENDINGS)}[code]


def ended_with_code(code: str) -> Failure | None:
    """The row for the word that a job left for its failure; None where that says too little."""
    return next((row for row in ENDINGS if row.code == code), None)


def while_connecting(signal: str) -> Failure | None:
    """The row for what went wrong before a command ran; None where the table has none."""
    return _first(CONNECTING, signal)


def while_running(signal: str) -> Failure | None:
    """The row for a command or a run that failed, from its status, its reason, or the end of its output."""
    return _first(RUNNING, signal)


def _first(table: tuple[Failure, ...], signal: str) -> Failure | None:
    said = signal[-SIGNAL_LIMIT:]
    return next((row for row in table if row.signal.search(said)), None)


def refusal(kind: type[E], message: str, cause: str, host: str) -> E:
    """An error of `kind` that says what its cause means, and what to type next."""
    row = while_connecting(cause)
    return kind(message + (f": {row.meaning}" if row else ""), hint=row.next_command(host=host) if row else "")


def unreachable(name: str, where: str, cause: str) -> Unreachable:
    """The error for a host that could not be reached, from the words of what went wrong."""
    row = while_connecting(cause)
    short = f"{name}: {where} can't be reached ({cause})"
    found = refusal(Unreachable, short, cause, name)
    found.passing, found.short = row is not None and row.passing, short
    return found
