"""~/.ssh/config: what counts of it for a login, compared with what `ssh -G` makes of the same file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remote.errors import RemoteError
from remote.ssh.address import Address, parse
from remote.ssh.config import Hop, aliases, route

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "me")
    monkeypatch.setenv("LOGNAME", "me")
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def config(home: Path, text: str, name: str = "config") -> Path:
    path = home / ".ssh" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_without_a_file_the_address_is_all_there_is(home: Path) -> None:
    assert route(Address("gpu", "root", 39111)) == (Hop("gpu", 39111, "root"),)
    assert route(Address("gpu")) == (Hop("gpu", 22, "me"),)


def test_an_alias_gives_what_the_address_does_not_say(home: Path) -> None:
    config(
        home,
        "Host gpu\n HostName connect.example.com\n Port 39111\n User root\n IdentityFile ~/.ssh/gpu_key\n"
        " IdentitiesOnly yes\n ConnectTimeout 7\n ConnectionAttempts 2\n ForwardAgent yes\n ForwardX11 yes\n",
    )
    key = home / ".ssh" / "gpu_key"
    assert route(parse("gpu")) == (Hop("connect.example.com", 39111, "root", (key,), True, "", 7, 2),)
    assert route(parse("other@gpu:22")) == (Hop("connect.example.com", 22, "other", (key,), True, "", 7, 2),)


def test_a_key_of_the_login_line_is_the_only_one(home: Path) -> None:
    config(home, "Host *\n IdentityFile ~/.ssh/general\n")
    [hop] = route(parse("ssh -i ~/mine root@gpu"))
    assert (hop.identity_files, hop.identities_only) == ((home / "mine",), True)
    [hop] = route(parse("root@gpu"))
    assert (hop.identity_files, hop.identities_only) == ((home / ".ssh" / "general",), False)


def test_jumps_are_gone_through_in_order(home: Path) -> None:
    config(
        home,
        "Host gpu\n ProxyJump one,two:2222\nHost one\n HostName first.example\n User a\n ProxyJump zero\n"
        "Host two\n User b\n ProxyJump never\n",
    )
    assert [str(hop) for hop in route(Address("gpu", "root"))] == [
        "me@zero:22",
        "a@first.example:22",
        "b@two:2222",
        "root@gpu:22",
    ]
    jumped = route(parse("ssh -J x@y:1 root@gpu"))
    assert [str(hop) for hop in jumped] == ["x@y:1", "root@gpu:22"]


def test_a_jump_for_everybody_is_not_one_for_itself(home: Path) -> None:
    config(home, "Host bastion\n User b\nHost *\n ProxyJump bastion\n ProxyCommand none\n")
    assert [str(hop) for hop in route(Address("gpu", "root"))] == ["b@bastion:22", "root@gpu:22"]
    config(home, "Host gpu\n ProxyJump none\nHost *\n ProxyJump bastion\n")
    assert len(route(Address("gpu"))) == 1


def test_jumps_in_a_circle_end(home: Path) -> None:
    config(home, "Host a\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyJump a\n")
    with pytest.raises(RemoteError, match="circle"):
        route(Address("a"))


def test_a_proxy_command_gets_the_port_and_user_that_count(home: Path) -> None:
    config(home, "Host gpu\n HostName h.example\n Port 1\n User u\n ProxyCommand nc %h %p # %r\n")
    assert route(parse("gpu"))[0].proxy_command == "nc h.example 1 # u"
    assert route(parse("root@gpu:39111"))[0].proxy_command == "nc h.example 39111 # root"


def test_included_files_count_where_they_are_named(home: Path) -> None:
    config(home, "Host inner\n Port 7\n", "a.conf")
    (home / ".ssh" / "more").mkdir()
    config(home, "Host late\n Port 9\n", "more/b.conf")
    config(
        home,
        "Include a.conf\nInclude more/*.conf nothing*\nUser everyone\n"
        "Host outer\n Include a.conf\n HostName outer.example\n",
    )
    assert route(Address("inner"))[0] == Hop("inner", 7, "everyone")
    assert route(Address("late"))[0] == Hop("late", 9, "everyone")
    assert route(Address("outer"))[0].host == "outer.example"
    assert set(aliases()) == {"inner", "late", "outer"}


def test_a_file_that_includes_itself_ends(home: Path) -> None:
    config(home, "Include config\n")
    with pytest.raises(RemoteError, match="circle"):
        route(Address("gpu"))
    assert aliases() == []


@pytest.mark.parametrize(
    "text",
    ["Host gpu\n Port many\n", "Host gpu\n Port 70000\n", "Host gpu\n ProxyJump -oProxyCommand=id\n", "Host 'gpu\n",
     "Match host\n", "Host gpu\n ConnectTimeout -1\n", "Port\nHost gpu\n Port 0x16\n"],
)  # fmt: skip
def test_a_broken_file_is_named(home: Path, text: str) -> None:
    path = config(home, text)
    with pytest.raises(RemoteError) as refused:
        route(Address("gpu"))
    assert str(path) in refused.value.message


ENDLESS = """
import os
from remote.errors import RemoteError
from remote.ssh.address import Address
from remote.ssh.host import SshHost
try:
    SshHost("there", Address("127.0.0.1", "root", 1), connect_timeout_s=0.5, retry_s=()).run(["true"])
except RemoteError as error:
    print(error.message, flush=True)
os._exit(0)
"""


def test_a_file_that_never_ends_is_an_error_in_time(home: Path) -> None:
    config(home, 'Match exec "sleep 30"\n Port 7\n')
    started = time.monotonic()
    # In a process of its own: what paramiko has run for `Match exec` is never closed.
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=20, check=True)
    assert "Match exec" in done.stdout or "takes longer" in done.stdout
    assert time.monotonic() - started < 5


def test_aliases_are_names_not_patterns(home: Path) -> None:
    config(home, "Host one two *.example !no 'three'\nHost=four\nMatch host five\n")
    assert aliases() == ["one", "two", "three", "four"]


@needs_ssh
@pytest.mark.parametrize("target", ["gpu", "plain.example", "gpu2.example", "x-7"])
def test_what_ssh_makes_of_it(home: Path, target: str) -> None:
    path = config(
        home,
        "Host gpu\n HostName connect.example.com\n Port 39111\n User root\n"
        "Host *.example\n Port 2222\n User ex\nHost gpu2.*\n Port 1\n IdentityFile ~/.ssh/two\n"
        "Host x-? !x-8\n HostName x.example.com\nHost *\n ConnectTimeout 9\n User fallback\n",
    )
    said = subprocess.run(["ssh", "-G", "-F", str(path), target], capture_output=True, text=True, check=True).stdout
    theirs = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    [hop] = route(Address(target))
    assert (hop.host, str(hop.port), hop.user) == (theirs["hostname"], theirs["port"], theirs["user"])
    assert str(hop.connect_timeout_s) == theirs["connecttimeout"]
