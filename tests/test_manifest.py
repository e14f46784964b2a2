"""The manifest: what it lists, what it notices, what it refuses from a hostile host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import manifest
from jobs.errors import BrokenRun

HEX = "0" * 64


def entry(path: str) -> dict[str, object]:
    return {"path": path, "size_bytes": 0, "sha256": HEX}


def test_a_folder_survives_and_every_change_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"abc")
    (tmp_path / "名字.json").write_text("{}")
    entries = manifest.parse(manifest.dump(manifest.list_files(tmp_path)))
    assert [one.path for one in entries] == ["adapter/weights", "名字.json"]
    assert manifest.problems(tmp_path, entries) == []
    (tmp_path / "adapter" / "weights").write_bytes(b"abd")
    (tmp_path / "名字.json").unlink()
    (tmp_path / "extra").touch()
    assert manifest.problems(tmp_path, entries) == [
        "adapter/weights: content differs from the manifest (sha256)",
        "名字.json: missing",
        "extra: not in the manifest",
    ]


def test_links_and_special_files_are_no_artifacts(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(BrokenRun, match="plain file"):
        manifest.list_files(tmp_path)
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BrokenRun, match="plain file"):
        manifest.list_files(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "./a",
        "a/",
        "",
        ".",
        "..",
        "C:\\windows",
        "c:x",
        "a\\b",
        "con",
        "NUL.txt",
        "com1.log",
        "a/lpt9",
        "a.",
        "a ",
        "new\nline",
        "esc\x1b[2J",
        "\x7f",
        "a:stream",
        "what?",
        "<x>",
    ],
)
def test_paths_that_leave_the_folder_or_mean_something_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(BrokenRun):
        manifest.parse(json.dumps({"files": [entry(path)]}))


def test_two_paths_that_are_one_file_on_windows_are_refused() -> None:
    with pytest.raises(BrokenRun, match="one name"):
        manifest.parse(json.dumps({"files": [entry("a"), entry("A")]}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"files": 1}',
        '{"files": [1]}',
        '{"files": [{"path": "a"}]}',
        "[" * 100_000,
        json.dumps({"files": [entry("a") | {"size_bytes": -1}]}),
        json.dumps({"files": [entry("a") | {"size_bytes": True}]}),
        json.dumps({"files": [entry("a") | {"sha256": "x" * 64}]}),
        json.dumps({"files": [entry("a"), entry("a")]}),
    ],
)
def test_anything_malformed_is_a_broken_run(text: str) -> None:
    with pytest.raises(BrokenRun):
        manifest.parse(text)


@given(st.text(max_size=40))
def test_a_path_that_is_allowed_stays_inside(path: str) -> None:
    try:
        manifest.check_relative(path)
    except BrokenRun:
        return
    assert Path("/x/y", path).resolve().is_relative_to("/x/y")
    assert Path("/x/y", path).resolve() != Path("/x/y")
