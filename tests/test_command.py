"""An argv arrives as it was written, through every shell there is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote import command

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "ksh", "busybox") if shutil.which(shell)]
# Prints its arguments, one variable and its folder, each ended by NUL, which none of them can hold.
REPORT = """
import os, sys
words = [*map(os.fsencode, sys.argv[1:]), os.environb.get(b"PROBE", b"unset"), os.fsencode(os.getcwd())]
sys.stdout.buffer.write(b"".join(word + b"\\0" for word in words))
"""
NASTY = [
    "", " ", "'", '"', "''", "\\", "\\\\", "\\'", "$HOME", "${x}", "$(id)", "`id`", "*", "?", "[a-z]", "~", "~root",
    "-", "--", "-n", "-e", "a=b", "PATH=", "if", "then", "!", "!!", "{", "}", "[[", "case", "exec", "#", "a b", "\n",
    "\r\n", "\t", "a\nb\n", ";", "&&", "|", ">x", "<", "&", "(", ")", "\x01", "\x1b[31m", "\x7f", "é", "评论", "😀",
    "\u2028", "'\"'\"'", "\\n", "%s", "%", "a'b\"c$d`e\\f", "\udcff",
]  # fmt: skip
# What the system can carry: bytes that are not UTF-8 travel as half surrogates, as everywhere in Python.
TEXTS = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.lists(st.sampled_from(NASTY), max_size=4).map("".join),
)


def through_shells(text, *, but=()):
    """What the shell text prints, the same from every shell."""
    said = set()
    for shell in [one for one in SHELLS if one not in but]:
        argv = [shell, "sh"] if shell == "busybox" else [shell]
        encoded = text.encode("utf-8", "surrogateescape")
        done = subprocess.run([*argv, "-c", encoded], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stderr) == (0, b""), shell
        said.add(done.stdout)
    assert len(said) == 1
    return said.pop()


def words(stdout):
    return [os.fsdecode(word) for word in stdout.split(b"\0")[:-1]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argvs=st.lists(st.lists(TEXTS, max_size=6), min_size=1, max_size=40))
def test_every_argv_arrives_unchanged(argvs):
    # Many to a shell, as each is a text that ends its own shell and no other.  printf repeats its format.
    texts = [command.render(["printf", "%s\\0", "begin", *argv]) for argv in argvs]
    expected = [word for argv in argvs for word in ("begin", *argv)]
    assert words(through_shells("\n".join(texts))) == expected


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argv=st.lists(TEXTS, max_size=4), value=TEXTS, folder=TEXTS.map(lambda text: text.replace("/", "_")[:40]))
def test_variables_and_folder_arrive_unchanged(tmp_path, argv, value, folder):
    folder = folder.encode("utf-8", "surrogateescape")[:80].decode("utf-8", "surrogateescape")
    there = tmp_path / folder if folder not in ("", ".", "..") else tmp_path
    there.mkdir(exist_ok=True)
    said = [
        command.render([sys.executable, "-ISc", REPORT, *argv], env={"PROBE": value}, cwd=str(there)),
        # Relative, so that "-", "--" and names that begin so are folders and nothing else.
        f"cd {shlex.quote(str(tmp_path))}",
        command.render([sys.executable, "-ISc", REPORT], cwd=there.name if there != tmp_path else ""),
    ]
    assert words(through_shells("\n".join(said))) == [*argv, value, str(there), "unset", str(there)]


@pytest.mark.parametrize("name", ["if", "a=b", "-x", "two words", "[[", "!", "评论", "'quoted'"])
def test_the_program_is_a_program_whatever_its_name(tmp_path, name):
    program = tmp_path / name
    program.write_text("#!/bin/sh\nprintf 'ran %s' \"$1\"\n")
    program.chmod(0o755)
    text = command.render([name, "x"], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    # busybox has a program of its own by that name, and takes it first wherever it is asked for.
    assert through_shells(text, but=["busybox"] if name == "[[" else []) == b"ran x"


def test_a_failed_cd_runs_nothing(tmp_path):
    done = subprocess.run(
        ["sh", "-c", command.render(["touch", str(tmp_path / "ran")], cwd=str(tmp_path / "nowhere"))],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_death_by_a_signal_is_a_status(shell):
    argv = [shell, "sh"] if shell == "busybox" else [shell]
    text = command.render(["sh", "-c", "kill -9 $$"])
    assert subprocess.run([*argv, "-c", text], capture_output=True, check=False).returncode == 137


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ([], {}),
        ([""], {}),
        (["a\0b"], {}),
        (["a", "b\0"], {}),
        (["a"], {"cwd": "x\0"}),
        (["a"], {"env": {"A": "\0"}}),
        (["a"], {"env": {"": "x"}}),
        (["a"], {"env": {"A=B": "x"}}),
        (["a"], {"env": {"1A": "x"}}),
        (["a"], {"env": {"A B": "x"}}),
        (["a"], {"env": {"A\n": "x"}}),
        (["a"], {"env": {"A;id": "x"}}),
        (["a"], {"env": {"É": "x"}}),
    ],
)
def test_what_can_not_be_run_is_refused(argv, options):
    with pytest.raises(ValueError, match=r"NUL|program|variable name"):
        command.render(argv, **options)
