"""What consoles and people paste as a login, and what they must not be able to smuggle in."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.address import Address, parse
from remote.errors import BadAddress


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu", Address("gpu")),
        ("connect.example.com", Address("connect.example.com")),
        ("root@gpu", Address("gpu", "root")),
        ("root@gpu:39111", Address("gpu", "root", 39111)),
        ("10.0.0.7:22", Address("10.0.0.7", "", 22)),
        ("  root@gpu  \n", Address("gpu", "root")),
        ("ssh gpu", Address("gpu")),
        ("ssh -p 39111 root@connect.example.com", Address("connect.example.com", "root", 39111)),
        ("ssh -p39111 root@gpu", Address("gpu", "root", 39111)),
        ("ssh root@gpu -p 39111", Address("gpu", "root", 39111)),
        ("ssh gpu -l root", Address("gpu", "root")),
        ("ssh -i ~/.ssh/id_gpu root@gpu", Address("gpu", "root", 0, "~/.ssh/id_gpu")),
        ("ssh -i '/a key/id' root@gpu", Address("gpu", "root", 0, "/a key/id")),
        ("ssh -o Port=2222 -oUser=me gpu", Address("gpu", "me", 2222)),
        ("ssh -o 'Port 2222' gpu", Address("gpu", "", 2222)),
        ("ssh -o StrictHostKeyChecking=no root@gpu", Address("gpu", "root")),
        ("::1", Address("::1")),
        ("root@[fe80::1%eth0]:2222", Address("fe80::1%eth0", "root", 2222)),
        ("user@corp@jump", Address("jump", "user@corp")),
    ],
)
def test_understands(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "ssh", "ssh -p 22", "root@", "@gpu", "a b", "-oProxyCommand=id", "root@-oProxyCommand=id", "-gpu",
        "gpu;id", "$(id)", "`id`", "gpu\nroot", "root@gpu:", "root@gpu:0", "root@gpu:65536", "root@gpu:22x", "gpu:-1",
        "ssh -p 0 gpu", "ssh -p x gpu", "ssh -p", "ssh gpu -p", "ssh gpu -i", "ssh gpu -l", "ssh gpu rm -rf /",
        "ssh -p ٢٢ gpu", "ro ot@gpu", "-root@gpu", "'ro\x1b[31mot'@gpu", "gpü", "ssh 'gpu", "[::1", "[]:22", "gpu/..",
        "gpu\0", "ssh://root@gpu:22",
    ],
)  # fmt: skip
def test_refuses(text):
    with pytest.raises(BadAddress) as refusal:
        parse(text)
    assert refusal.value.code == "address_invalid"
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ssh -A root@gpu", "-A"),
        ("ssh -X -p 22 root@gpu", "-X"),
        ("ssh -o ProxyCommand=id root@gpu", "-o ProxyCommand"),
        ("ssh -oForwardAgent=yes root@gpu", "-o ForwardAgent"),
        ("ssh -NL 8080:localhost:80 root@gpu", "-NL"),
    ],
)
def test_names_the_options_it_can_not_use(text, named):
    with pytest.raises(BadAddress) as refusal:
        parse(text)
    assert named in refusal.value.message


LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,10}[A-Za-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.just("fe80::1%eth0"),
)
USERS = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,12}", fullmatch=True))
PORTS = st.one_of(st.just(0), st.integers(1, 65535))
FILES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(host=HOSTS, user=USERS, port=PORTS)
def test_what_it_shows_it_understands(host, user, port):
    # `ssh` alone is the program, not a host.
    address = Address(host if host != "ssh" else "gpu", user, port)
    assert parse(str(address)) == address


@given(host=HOSTS, user=USERS, port=PORTS, identity=FILES, order=st.permutations(range(3)))
def test_a_login_line_says_the_same_in_any_order(host, user, port, identity, order):
    target = [f"{user}@{host}" if user else host]
    parts = [target, ["-p", str(port)] if port else [], ["-i", identity] if identity else []]
    line = shlex.join(["ssh", *(word for place in order for word in parts[place])])
    assert parse(line) == Address(host, user, port, identity)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text):
    try:
        found = parse(text)
    except BadAddress:
        return
    assert found.host
    assert not found.host.startswith("-")
    assert not found.user.startswith("-")
    assert found.host.isprintable()
