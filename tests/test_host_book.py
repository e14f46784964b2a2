"""The saved hosts: a file a person can read and edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import LaunchError, NoSuchHost
from launcher.host_book import HostBook, SavedHost


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


@pytest.mark.parametrize("name", ["", "local", "-x", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_names_that_can_be_no_hosts(book: HostBook, name: str) -> None:
    with pytest.raises(LaunchError):
        book.add(SavedHost(name, "root@box"))


@pytest.mark.parametrize("text", ["not toml", "[box]\nx = 1\n", 'box = "root@box"\n', "[box]\nlogin = 3\n"])
def test_a_file_that_was_broken_by_hand_is_named(book: HostBook, tmp_path: Path, text: str) -> None:
    path = tmp_path / "data" / "hosts.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(LaunchError) as caught:
        book.all()
    assert str(path) in caught.value.message
    assert caught.value.hint
