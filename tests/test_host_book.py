"""The saved hosts: a file a person can read and edit."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import LaunchError, NoSuchHost
from launcher.host_book import HostBook, SavedHost
from remote.identity import Identity


@pytest.fixture
def book(tmp_path: Path) -> HostBook:
    return HostBook(tmp_path / "data" / "hosts.toml")


def test_add_find_replace_remove(book: HostBook, tmp_path: Path) -> None:
    book.add(SavedHost("box", "ssh -p 39111 root@connect.example.com", workspace="/mnt"))
    book.add(SavedHost("box", "root@other:22"))
    book.add(SavedHost("second", "root@second"))
    assert [saved.name for saved in book.all()] == ["box", "second"]
    assert book.find("box") == SavedHost("box", "root@other:22")
    book.remove("box")
    assert [saved.name for saved in book.all()] == ["second"]
    with pytest.raises(NoSuchHost, match="second"):
        book.find("box")


def test_a_persons_comments_survive(book: HostBook, tmp_path: Path) -> None:
    path = tmp_path / "data" / "hosts.toml"
    path.parent.mkdir()
    path.write_text('# my boxes\n[old]\nlogin = "root@old"  # the cheap one\n', "utf-8")
    book.add(SavedHost("new", "root@new"))
    assert "# my boxes" in path.read_text("utf-8")
    assert "# the cheap one" in path.read_text("utf-8")
    assert [saved.name for saved in book.all()] == ["old", "new"]


def test_local_and_addresses_are_hosts_without_being_saved(book: HostBook) -> None:
    assert book.find("local").login == ""
    assert book.find("root@box:2222").login == "root@box:2222"
    assert book.find("ssh -p 1 root@box").login == "ssh -p 1 root@box"


def test_a_bare_word_is_a_host_only_as_an_alias(
    book: HostBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host gpu *.lab\n  HostName gpu.example.com\n")
    assert book.find("gpu") == SavedHost("gpu", "gpu")
    assert book.find("gpu.example.com") == SavedHost("gpu.example.com", "gpu.example.com")
    with pytest.raises(NoSuchHost, match="known: gpu"):
        book.find("gpx")


@pytest.mark.slow
def test_hosts_that_are_added_at_once_are_all_kept(book: HostBook, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: book.add(SavedHost(f"box{number}", "root@box")), range(40)))
    assert len(book.all()) == 40
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["hosts.toml"]
    (tmp_path / "data" / "hosts.toml.lock").touch()  # left behind by somebody who was killed
    book.remove("box7")
    assert len(book.all()) == 39


@pytest.mark.skipif(os.name == "nt", reason="needs symlinks")
def test_a_link_to_the_file_stays_one(book: HostBook, tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("")
    (tmp_path / "data").mkdir()
    book.path.symlink_to(tmp_path / "real.toml")
    book.add(SavedHost("box", "root@box"))
    assert book.path.is_symlink()
    assert "[box]" in (tmp_path / "real.toml").read_text()


def test_an_identity_is_kept_and_what_a_person_wrote_beside_it(book: HostBook, tmp_path: Path) -> None:
    box = SavedHost("box", "root@box", profile="autodl", identity=Identity("h", "p", "m", "b"))
    book.add(box)
    path = tmp_path / "data" / "hosts.toml"
    path.write_text(path.read_text("utf-8").replace("[box]\n", "[box]\n# the fast one\n"), "utf-8")
    book.add(replace(box, login="root@elsewhere:2", profile=""))
    assert book.find("box") == SavedHost("box", "root@elsewhere:2", identity=Identity("h", "p", "m", "b"))
    assert "# the fast one" in path.read_text("utf-8")


@pytest.mark.parametrize("name", ["", "local", "-x", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_names_that_can_be_no_hosts(book: HostBook, name: str) -> None:
    with pytest.raises(LaunchError):
        book.add(SavedHost(name, "root@box"))


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[box]\nx = 1\n",
        'box = "root@box"\n',
        "[box]\nlogin = 3\n",
        "[box]\nlogin = 'x'\nidentity = 3\n",
        "[box]\nlogin = 'x'\n[box.identity]\nmarker = 3\n",
    ],
)
def test_a_file_that_was_broken_by_hand_is_named(book: HostBook, tmp_path: Path, text: str) -> None:
    path = tmp_path / "data" / "hosts.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(LaunchError) as caught:
        book.all()
    assert str(path) in caught.value.message
    assert caught.value.hint
