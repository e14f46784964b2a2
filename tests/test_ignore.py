"""What stays at home when a tree is synced: git itself is the judge, also on patterns nobody would write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from remote.errors import RemoteError
from remote.ignore import LIMIT_BYTES, NOTHING, Ignore

Tree = dict[str, bytes]


def write(root: Path, tree: Tree) -> Path:
    for path, content in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


def kept(root: Path) -> list[str]:
    """The files that are not left out, as a sync would walk to them."""
    found = []
    stack = [("", Ignore.at(root))]
    while stack:
        prefix, rules = stack.pop()
        with os.scandir(root / prefix) as listing:
            for item in listing:
                is_dir = item.is_dir(follow_symlinks=False)
                if rules.skips(item.name, is_dir):
                    continue
                if is_dir:
                    stack.append((f"{prefix}{item.name}/", rules.enter(item.name)))
                else:
                    found.append(prefix + item.name)
    return sorted(found)


class Git:
    """A repository whose own folder lies outside of its tree."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.root.mkdir()
        self._repository = folder / "repository"
        self._run("init", "-q", "--bare", str(self._repository))

    def _run(self, *argv: str) -> bytes:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(
            ["git", "-c", "core.excludesFile=", "-c", "core.ignoreCase=false", *argv],
            cwd=self.root,
            env=environment | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            capture_output=True,
            check=True,
        ).stdout

    def kept(self, tree: Tree) -> list[str]:
        """The files of `tree`, written to `root`, that git would add."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        write(self.root, tree)
        where = f"--git-dir={self._repository}", "--work-tree=."
        listed = self._run(*where, "ls-files", "--others", "--exclude-standard", "-z")
        return sorted(map(os.fsdecode, listed.split(b"\0")[:-1]))


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    return Git(tmp_path_factory.mktemp("git"))


def test_without_an_ignore_file_nothing_is_left_out(tmp_path):
    write(tmp_path, {"a/b": b"", ".git/HEAD": b""})
    assert kept(tmp_path) == [".git/HEAD", "a/b"]
    assert Ignore.at(tmp_path).source == ""


def test_launchignore_counts_in_place_of_gitignore_in_all_of_the_tree(tmp_path):
    tree = {".launchignore": b"a\n", ".gitignore": b"b\n", "a": b"", "b": b""}
    below = {"c/.launchignore": b"!a\nd\n", "c/.gitignore": b"e\n", "c/a": b"", "c/d": b"", "c/e": b""}
    write(tmp_path, tree | below)
    assert set(kept(tmp_path)) == {*tree, *below} - {"a", "c/d"}
    assert Ignore.at(tmp_path).source == ".launchignore"


def test_gitignore_counts_where_the_root_has_no_launchignore(tmp_path):
    tree = {".gitignore": b"a\n", "a": b"", "b": b"", "c/.launchignore": b"b\n", "c/a": b"", "c/b": b""}
    write(tmp_path, tree)
    assert set(kept(tmp_path)) == tree.keys() - {"a", "c/a"}
    assert Ignore.at(tmp_path).source == ".gitignore"


def test_a_gitignore_further_down_counts_also_when_the_root_has_none(tmp_path):
    tree = {"a": b"", "c/.gitignore": b"a\n", "c/a": b"", "c/d/a": b"", "c/.git/HEAD": b"", ".git/HEAD": b""}
    write(tmp_path, tree)
    assert set(kept(tmp_path)) == tree.keys() - {"c/a", "c/d/a"}
    assert Ignore.at(tmp_path).source == ""
    assert Ignore.at(tmp_path).enter("c").enter("d").source == ".gitignore"


def test_an_ignore_file_above_the_root_does_not_count(tmp_path):
    write(tmp_path, {".gitignore": b"*\n", ".launchignore": b"*\n", "tree/a": b""})
    assert kept(tmp_path / "tree") == ["a"]


def test_what_git_calls_its_own_is_left_out_in_every_folder(tmp_path):
    write(
        tmp_path, {".gitignore": b"!.git\n", ".git/HEAD": b"", "a/.git/HEAD": b"", "a/b/.git": b"", "a/.github/c": b""}
    )
    assert kept(tmp_path) == [".gitignore", "a/.github/c"]


def test_only_the_rules_of_a_launchignore_count(tmp_path):
    write(tmp_path, {".launchignore": b"", ".git/HEAD": b"", "a/.git": b""})
    assert kept(tmp_path) == [".git/HEAD", ".launchignore", "a/.git"]


def test_nothing_in_a_folder_that_is_left_out_can_be_taken_back(tmp_path):
    write(tmp_path, {".gitignore": b"a\n!a/b\n", "a/.gitignore": b"!b\n", "a/b": b""})
    assert kept(tmp_path) == [".gitignore"]


def test_a_folder_or_link_by_the_name_of_an_ignore_file_is_none(tmp_path):
    write(tmp_path, {".launchignore/x": b"", ".gitignore": b"a\n", "a": b"", "b/a": b"", "rules": b"!a\n"})
    (tmp_path / "b" / ".gitignore").symlink_to(tmp_path / "rules")
    assert kept(tmp_path) == [".gitignore", ".launchignore/x", "b/.gitignore", "rules"]


def test_marks_and_line_ends_of_windows_are_no_part_of_a_pattern(tmp_path):
    write(tmp_path, {".launchignore": b"\xef\xbb\xbfa\r\n\r\nb/\r\nc", "a": b"", "b/a": b"", "c": b"", "d": b""})
    assert kept(tmp_path) == [".launchignore", "d"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "gb18030"])
def test_a_pattern_matches_the_same_bytes_whatever_they_mean(tmp_path, encoding):
    name = "é目".encode(encoding, "replace")
    write(tmp_path, {".gitignore": name + b"\n/a/" + name + b"?\n"})
    rules = Ignore.at(tmp_path)
    known = name.decode("utf-8", "surrogateescape")
    assert rules.skips(known, is_dir=False)
    assert rules.skips_path(f"a/{known}2", is_dir=False)
    assert not rules.skips("é", is_dir=False)


def test_a_path_is_left_out_with_a_folder_that_it_lies_in(tmp_path):
    write(tmp_path, {".gitignore": b"logs/\n", "a/.gitignore": b"/b/*\n!/b/c\n"})
    rules = Ignore.at(tmp_path)
    for path in ("logs/x", "a/logs/x/y", "a/b/x", "a/b/d/x"):
        assert rules.skips_path(path, is_dir=False), path
    for path in ("logs", "a", "a/b/c", "b/b/x", "not/there"):
        assert not rules.skips_path(path, is_dir=False), path
    assert rules.skips_path("logs", is_dir=True)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000, "no/such", "file"])
def test_a_name_that_no_folder_has_is_entered_without_finding_anything(tmp_path, name):
    write(tmp_path, {".gitignore": b"*.log\n", "file": b""})
    rules = Ignore.at(tmp_path).enter(name)
    assert rules.skips("a.log", is_dir=False)
    assert not rules.skips(name, is_dir=False)


def test_nothing_looks_at_no_file(tmp_path, monkeypatch):
    write(tmp_path, {".gitignore": b"*\n", "a/.gitignore": b"*\n"})
    monkeypatch.chdir(tmp_path)
    assert NOTHING.enter("a") is NOTHING
    assert not NOTHING.skips("a", is_dir=True)
    assert not NOTHING.skips_path("a/b", is_dir=False)
    assert NOTHING.source == ""


def test_pathspec_is_imported_only_where_a_rule_was_found(tmp_path):
    program = (
        "import sys, pathlib; from remote.ignore import Ignore; Ignore.at(pathlib.Path(sys.argv[1])).enter('a')\n"
        "print('pathspec' in sys.modules)"
    )
    for tree, expected in (({"a/b": b""}, "False\n"), ({"a/.gitignore": b"x\n"}, "True\n")):
        write(tmp_path, tree)
        done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
        assert done.stdout == expected


# ---- broken and hostile files


def test_a_pattern_that_means_nothing_is_named_with_its_line(tmp_path):
    write(tmp_path, {"a/.gitignore": b"# one\r\n\r\nb\xe9\\\r\n"})
    with pytest.raises(RemoteError) as caught:
        Ignore.at(tmp_path).enter("a")
    assert caught.value.message.startswith(f"{tmp_path / 'a' / '.gitignore'}, line 3: ")
    assert "b\\\\xe9" in caught.value.message
    assert caught.value.hint == "mend or remove that line"


def test_a_pattern_without_end_is_shown_by_its_beginning(tmp_path):
    write(tmp_path, {".gitignore": b"[a" * 5000})
    with pytest.raises(RemoteError, match=r"line 1: '(\[a)+\.\.\.' is no pattern") as caught:
        Ignore.at(tmp_path)
    assert len(caught.value.message) < 150 + len(str(tmp_path))


def test_a_file_too_large_to_hold_patterns_is_refused(tmp_path):
    write(tmp_path, {".gitignore": b"a\n" + b"#" * (LIMIT_BYTES - 2)})
    assert Ignore.at(tmp_path).skips("a", is_dir=False)
    write(tmp_path, {".gitignore": b"a\n" + b"#" * (LIMIT_BYTES - 1)})
    with pytest.raises(RemoteError, match="larger than 1 MiB"):
        Ignore.at(tmp_path)


def test_a_file_that_can_not_be_read_is_an_error(tmp_path):
    file = write(tmp_path, {".gitignore": b"a\n"}) / ".gitignore"
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("whoever may read everything can't be kept from it")
    with pytest.raises(RemoteError, match=r"\.gitignore can't be read"):
        Ignore.at(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*a*a*a*a*a*a*a*a*a*a*b", "a" * 255, False),
        ("*a*a*a*a*a*a*a*a*a*a*b", "a" * 254 + "b", True),
        ("/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/b", "a/" * 300 + "c", False),
        ("/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/b", "a/" * 300 + "b", True),
        ("a" + "**/" * 1300 + "b", "ax/b", True),
        ("**/" * 1300 + "*b", "a/" * 300 + "b", True),
        ("x/**/*a*a*/**/*a*a*a*/**/?*?*a/**/b", "x/" + f"{'a' * 200}/" * 18 + "c", False),
    ],
)
def test_no_pattern_makes_matching_take_long(tmp_path, pattern, path, matches):
    write(tmp_path, {".gitignore": pattern.encode()})
    rules = Ignore.at(tmp_path)
    started = time.perf_counter()
    assert rules.skips_path(path, is_dir=False) == matches
    assert time.perf_counter() - started < 1


@pytest.mark.alone
def test_a_hundred_thousand_files_are_looked_at_in_two_seconds(tmp_path):
    patterns = ["build/", "*.py[cod]", "!keep.*", "/data/raw/**", "**/tmp/*.pt", "docs/_build/"] * 5
    write(tmp_path, {".gitignore": "\n".join(patterns).encode()})
    rules = Ignore.at(tmp_path).enter("data").enter("train")
    names = [f"image_{number:06d}.jpg" for number in range(100_000)]
    started = time.perf_counter()
    assert not any(rules.skips(name, is_dir=False) for name in names)
    assert time.perf_counter() - started < 2


# ---- against git

NAMES = [
    "a", "b", "ab", "aab", "a.b", "x", "#a", "!b", "a ", " a", "[a]", "a\\", "*", "-", "A", "1", "é", "\udce9", "a\n",
]  # fmt: skip
TOKENS = [
    "a", "b", "ab", "x", ".", "1", "A", "-", "]", "^", " ", "\t", "é", "\udce9", "\xa0", "*", "*", "**", "***", "?",
    "\\a", "\\*", "\\#", "\\!", "\\ ", "\\[", "\\\\", "\\?", "\\/", "#", "!", "[ab]", "[!a]", "[^a]", "[a-b]",
    "[b-a]", "[!a-b]", "[]a]", "[!]a]", "[a-]", "[-a]", "[a\\]b]", "[\\a-b]", "[a-\\b]", "[[:alpha:]]",
    "[![:alpha:]]", "[[:digit:]-b]", "[[:upper:]a]", "[[:punct:]]", "[[:space:]]", "[[:nothing:]]", "[[:]", "[[:a]",
    "[[a]", "[!-~]", "[--.]", "[a&&b]", "[a||b]", "[\\\\]", "[é]", "[a/b]", "[!/]", "[", "[a", "[!", "[]",
    "[[:print:]]", "[[:graph:]]", "[[:cntrl:]]", "[[:blank:]]", "[[:xdigit:]]", "[[:alnum:]]", "[[:lower:]]",
]  # fmt: skip
name_pattern = st.one_of(
    st.sampled_from(["a", "b", "ab", "x", "*", "**", "a*", "*b", "?", "***", "a**", "**a", "", "*a*b*"]),
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=4).map("".join),
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    negated = draw(st.sampled_from(["", "", "", "!"]))
    start = draw(st.sampled_from(["", "", "", "/", "**/", "*/"]))
    middle = "/".join(draw(st.lists(name_pattern, min_size=1, max_size=4)))
    end = draw(
        st.sampled_from(["", "", "", "/", "/**", "/*", "/**/", " ", "  ", "\\ ", "\\  ", "\t", "\r", " \r", "\0b"])
    )
    pattern = negated + start + middle + end
    # A lone backslash at the end is an error here and never matches there.
    spelled = pattern.partition("\0")[0].removesuffix("\r").rstrip(" ").removesuffix("/")
    return pattern if (len(spelled) - len(spelled.rstrip("\\"))) % 2 == 0 else spelled + "x"


folder_path = st.lists(st.sampled_from(NAMES[:13]), max_size=3).map("/".join)
ignore_file = st.builds(
    lambda mark, content, end: (mark + "\n".join(content) + end).encode("utf-8", "surrogateescape"),
    st.sampled_from(["", "", "", "\ufeff"]),
    st.lists(st.one_of(lines(), lines(), lines(), st.sampled_from(["", "# a", "#", " ", "!", "/", "\r"])), max_size=5),
    st.sampled_from(["\n", "\n", ""]),
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Files, and the ignore files of some of their folders."""
    files = draw(st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join), max_size=14))
    rules = draw(st.dictionaries(folder_path, ignore_file, min_size=1, max_size=3))
    wanted = {f"{folder}/.gitignore".removeprefix("/"): content for folder, content in rules.items()}
    tree: Tree = {}
    for path, content in (wanted | dict.fromkeys(files, b"")).items():
        if not tree.keys() & set(folders(path)) and not any(path in folders(other) for other in tree):
            tree[path] = content
    return tree


def folders(path: str) -> list[str]:
    return [path[:at] for at, character in enumerate(path) if character == "/"]


def one(patterns: str, *paths: str) -> Tree:
    return {".gitignore": patterns.encode(), **dict.fromkeys(paths, b"")}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a filesystem that takes any name")
@settings(
    max_examples=int(os.environ.get("IGNORE_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=trees())
@example(tree=one("build\n!src\n", "src/build/x", "build/x", "src/x"))
@example(tree=one("a/**\n!a/b\n", "a/a", "a/b", "a/ab/b"))
@example(tree=one("a**/b\nx/a**\n!x/ab/\n", "ab", "a/b", "a/x/b", "ax/b", "x/ab/b", "x/a", "b"))
@example(tree=one("a**/b/a**/a\na**//x\nab/[//[ab]\n", "ab/ab", "a/b/ax/a", "ab/a/a", "ab/aa", "a/x", "ab/b", "ab/x"))
@example(tree=one("a**/**/b\nx**/***\nb**/**b/x\n", "ab", "a/b", "ax/x/b", "xa", "x/a", "bb/x", "b/ab/x"))
@example(tree=one("x/[!a]b\nx[!a]b\n", "x/bb", "x/ab", "xbb"))
@example(tree=one("**\\/b\n", "b", "a/b", "a/a/b"))
@example(tree=one("a\\ \nb\t\nx \n1\xa0\n", "a ", "a", "b", "x", "1"))
def test_the_same_files_are_left_out_as_git_leaves_out(git, tree):
    expected = git.kept(tree)
    assert kept(git.root) == expected
    rules = Ignore.at(git.root)
    assert [path for path in sorted(tree) if not rules.skips_path(path, is_dir=False)] == expected
    assert not any(rules.skips_path(folder, is_dir=True) for path in expected for folder in folders(path))
