"""What consoles and people paste as a login, what they must not be able to smuggle in, and what is never repeated."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from remote.errors import BadAddress
from remote.ssh.address import Address, parse


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
        ("[::1]:22", Address("::1", "", 22)),
        ("fe80::1%eth0", Address("fe80::1%eth0")),
        ("root@[fe80::1%eth0]:2222", Address("fe80::1%eth0", "root", 2222)),
        ("ssh -p 22 root@::1", Address("::1", "root", 22)),
        ("[gpu]:39111", Address("gpu", "", 39111)),
        ("user@corp@jump", Address("jump", "user@corp")),
        ("$ ssh root@gpu", Address("gpu", "root")),
        ("> root@gpu", Address("gpu", "root")),
        ("ssh\u00a0-p\u300039111\u2003root@gpu", Address("gpu", "root", 39111)),
        ("ssh -p 39111 \\\n  root@gpu", Address("gpu", "root", 39111)),
    ],
)
def test_understands(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh -o IdentitiesOnly=yes gpu", Address("gpu", identities_only=True)),
        ("ssh -o identitiesonly=NO gpu", Address("gpu")),
        ("ssh -oIdentityFile=~/id gpu", Address("gpu", identity_file="~/id")),
        ("ssh -o 'IdentityFile \"~/my key\"' gpu", Address("gpu", identity_file="~/my key")),
        ("ssh -o 'Port = 2222' gpu", Address("gpu", port=2222)),
        ("ssh -o ConnectTimeout=10 gpu", Address("gpu", connect_timeout_s=10)),
        ("ssh -o HostName=10.0.0.7 gpu", Address("10.0.0.7")),
        ("ssh gpu -o HostName=::1", Address("::1")),
        ("ssh -J a,b@c:22 gpu", Address("gpu", jump=(Address("a"), Address("c", "b", 22)))),
        ("ssh -J [::1]:23 gpu", Address("gpu", jump=(Address("::1", "", 23),))),
        ("ssh -Jjump gpu", Address("gpu", jump=(Address("jump"),))),
        ("ssh -o 'ProxyJump a, b' gpu", Address("gpu", jump=(Address("a"), Address("b")))),
        ("ssh -qtp39111 gpu", Address("gpu", port=39111)),
    ],
)
def test_understands_options(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh -p 1 -p 2 -o Port=3 gpu", Address("gpu", port=1)),
        ("ssh -oPort=3 -p 2 gpu", Address("gpu", port=3)),
        ("ssh -l me root@gpu", Address("gpu", "me")),
        ("ssh root@gpu -l me", Address("gpu", "root")),
        ("ssh -J a -J b gpu", Address("gpu", jump=(Address("a"),))),
    ],
)
def test_the_first_of_an_option_counts(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"C:\Users\me\.ssh\id_ed25519", r"C:\Users\me\.ssh\id_ed25519"),
        (r"\\server\share\id", r"\\server\share\id"),
        (r'"C:\Users\my name\id"', r"C:\Users\my name\id"),
        (r"'C:\Users\my name\id'", r"C:\Users\my name\id"),
        (r"C:\Users\my\ name\id", r"C:\Users\my name\id"),
        (r"~\it\'s\id", r"~\it's\id"),
    ],
)
def test_a_path_may_come_from_windows(path, expected):
    assert parse(f"ssh -i {path} root@gpu") == Address("gpu", "root", 0, expected)


@pytest.mark.parametrize(
    "option",
    [
        "-q", "-v", "-vvv", "-t", "-tt", "-T", "-qtT", "-o StrictHostKeyChecking=no", "-oServerAliveInterval=30",
        "-o ServerAliveCountMax=3", "-o TCPKeepAlive=yes", "-o 'LogLevel ERROR'", "-o ControlMaster=auto",
        "-o ControlPath=~/.ssh/%C", "-o controlpersist=10m",
    ],
)  # fmt: skip
def test_takes_options_that_change_nothing(option):
    assert parse(f"ssh {option} root@gpu") == Address("gpu", "root")
    assert parse(f"ssh root@gpu {option}") == Address("gpu", "root")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "ssh", "ssh -p 22", "root@", "@gpu", "a b", "-oProxyCommand=id", "root@-oProxyCommand=id", "-gpu",
        "gpu;id", "$(id)", "`id`", "gpu\nroot", "root@gpu:", "root@gpu:0", "root@gpu:65536", "root@gpu:22x", "gpu:-1",
        "ssh -p 0 gpu", "ssh -p x gpu", "ssh -p", "ssh gpu -p", "ssh gpu -i", "ssh gpu -l", "ssh gpu rm -rf /",
        "ssh -p ٢٢ gpu", "ro ot@gpu", "-root@gpu", "'ro\x1b[31mot'@gpu", "gpü", "ssh 'gpu", "[::1", "[]:22", "gpu/..",
        "gpu\0", "ssh://root@gpu:22", "$", "$ ssh", "abc:22:33", "::1%", "ssh -i '' gpu", "ssh -i 'a\0b' gpu",
        "ssh -o Port gpu", "ssh -o =22 gpu", "ssh -o Port= gpu", "ssh -o IdentitiesOnly=maybe gpu",
        "ssh -o ConnectTimeout=0 gpu", "ssh -o ConnectTimeout=1m gpu", "ssh -J '' gpu", "ssh -J a,,b gpu",
        "ssh -J ssh://a gpu", "ssh -J 'a b' gpu", "ssh -J -oProxyCommand=id gpu", "ssh -o HostName=%h.example gpu",
        "ssh -o HostName=gpu", "ssh --help", "ssh - gpu", "ssh -i a -i b gpu", "ssh -i a -oIdentityFile=b gpu",
    ],
)  # fmt: skip
def test_refuses(text):
    with pytest.raises(BadAddress) as refusal:
        parse(text)
    assert refusal.value.code == "address_invalid"
    assert refusal.value.hint


def refused(text):
    with pytest.raises(BadAddress) as refusal:
        parse(text)
    return refusal.value


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ssh -A root@gpu", ["-A"]),
        ("ssh -X -p 22 root@gpu", ["-X"]),
        ("ssh -o ProxyCommand=id root@gpu", ["-o ProxyCommand"]),
        ("ssh -oForwardAgent=yes root@gpu", ["-o ForwardAgent"]),
        ("ssh -NL 8080:localhost:80 root@gpu", ["-N", "-L"]),
        ("ssh -4C6 root@gpu", ["-4", "-C", "-6"]),
        ("ssh -J none gpu", ["-J"]),
        ("ssh -o ProxyJump=none gpu", ["-o ProxyJump"]),
        ("ssh -AY -o UserKnownHostsFile=/dev/null root@gpu -F none", ["-A", "-Y", "-o UserKnownHostsFile", "-F"]),
        ("ssh -R1:b:2 -D 1080 root@gpu", ["-R", "-D"]),
    ],
)
def test_names_all_the_options_it_can_not_use(text, named):
    refusal = refused(text)
    assert f"it says {', '.join(named)}, which" in refusal.message
    assert "~/.ssh/config" in refusal.hint


@pytest.mark.parametrize("option", ["-L 1:a:2", "-R1:b:2", "-D 1", "-fNL 1:a:2", "-o LocalForward='1 a:2'"])
def test_says_what_makes_a_tunnel(option):
    assert "launch tunnel" in refused(f"ssh {option} root@gpu").hint


def test_says_why_a_pasted_text_runs_nothing():
    assert "must not run programs" in refused("ssh -o proxycommand=id root@gpu").message
    assert "launch tunnel" not in refused("ssh -A root@gpu").hint


@pytest.mark.parametrize("dash", "–—‒―−")
def test_says_that_a_dash_was_made_longer(dash):
    assert "long dash" in refused(f"ssh {dash}p 39111 root@gpu").message


def test_says_what_does_not_belong_there():
    assert "2 more words after the host: a command, or a password" in refused("ssh root@gpu ls -la").message
    assert "1 more word after the host" in refused("ssh -A root@gpu ls").message
    assert "-A" in refused("ssh -A root@gpu ls").message
    assert "a password is not part of it" in refused("root:x@gpu").message
    assert "a password is not part of it" in refused("sshpass -p x ssh root@gpu").message
    assert "more than one key file" in refused("ssh -i a -i b root@gpu").message


PLACES = [
    "ssh -p 1 root@h {}", "ssh root@h {} -p 1", "root:{}@h", "ssh root:{}@h", "root@h:{}", "root@h {}",
    "ssh -p {} root@h", "sshpass -p {} ssh root@h", "sshpass -p{} ssh -p 1 root@h", "SSHPASS={} ssh root@h",
    "ssh {} root@h", "{} ssh root@h", "ssh -o ProxyCommand={} root@h", "ssh -oSetEnv=A={} root@h", "ssh -o Port={} h",
    "ssh -o IdentitiesOnly={} h", "ssh -J a:{}@b h", "ssh -J a:{} h", "ssh -L {} h", "ssh -o HostName=a:{}@b h",
    "ssh -o ConnectTimeout={} h", "ssh -p 1 root@h\npassword: {}", "ssh -l root:{} h", "ssh://root:{}@h", "'{}",
    "ssh '{}", "ssh -i a\0{} h",
]  # fmt: skip
# A "secret" that is one of these words is none.
WORDS_OF_OURS = "\n".join(f"{error.message} {error.hint}" for error in (refused(one.format("3~}")) for one in PLACES))
LETTERS = st.characters(exclude_categories=["Cs"])


@given(place=st.sampled_from(PLACES), secret=st.text(LETTERS, min_size=5, max_size=24))
@example(place=PLACES[0], secret="-Secret")
@example(place=PLACES[0], secret="–secret")
@example(place=PLACES[0], secret="'secret")
@example(place="ssh -i a -p 1 root@h {}", secret="se cr et")
def test_a_secret_that_was_pasted_along_is_never_repeated(place, secret):
    try:
        parse(place.format(secret))
    except BadAddress as refusal:
        # An exception that another one led to would be shown in a traceback.
        said = "\n".join([refusal.message, refusal.hint, str(refusal), repr(refusal.__context__)])
        assume(secret.strip() not in WORDS_OF_OURS)
        assert secret.strip() not in said


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
ENDS = st.builds(Address, HOSTS, USERS, PORTS)
ADDRESSES = st.builds(
    Address,
    HOSTS,
    USERS,
    PORTS,
    identity_file=FILES,
    identities_only=st.booleans(),
    jump=st.lists(ENDS, max_size=3).map(tuple),
    connect_timeout_s=st.integers(0, 3600),
)


@given(host=HOSTS, user=USERS, port=PORTS)
def test_what_it_shows_it_understands(host, user, port):
    # `ssh` alone is the program, not a host.
    address = Address(host if host != "ssh" else "gpu", user, port)
    assert parse(str(address)) == address


@given(ADDRESSES)
@example(Address("ssh"))
@example(Address("sshpass", jump=(Address("ssh"),)))
@example(Address("gpu", identity_file=r"C:\it's \" mine\\"))
@example(Address("gpu", identity_file="–i\u00a0\u3000 "))
def test_its_login_line_says_all_of_it(address):
    assert parse(address.login_line) == address
    assert parse(f"$ {address.login_line}\n") == address


def test_its_login_line_is_one_for_people_too():
    assert Address("gpu", "root", 22).login_line == "root@gpu:22"
    address = Address("host", "root", 39111, "~/my key", jump=(Address("b", "a", 22),))
    assert address.login_line == "ssh -p 39111 -i '~/my key' -J a@b:22 root@host"


@given(host=HOSTS, user=USERS, port=PORTS, identity=FILES, order=st.permutations(range(3)))
def test_a_login_line_says_the_same_in_any_order(host, user, port, identity, order):
    target = [f"{user}@{host}" if user else host]
    parts = [target, ["-p", str(port)] if port else [], ["-i", identity] if identity else []]
    line = shlex.join(["ssh", *(word for place in order for word in parts[place])])
    assert parse(line) == Address(host, user, port, identity)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_what_sh_takes_for_a_word_is_one_here(word):
    assert parse(shlex.join(["ssh", "-i", word, "gpu"])) == Address("gpu", identity_file=word)


PIECES = [
    "ssh", "-p", "22", "-i", "-J", "-l", "-o", "a", "a@b", "a:22", ",", " ", "'", '"', "\\", "-", "--", "-q", "=", "$",
    "::1",
]  # fmt: skip


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_any_text_is_an_address_or_refused(text):
    try:
        found = parse(text)
    except BadAddress:
        return
    for address in (found, *found.jump):
        assert address.host
        assert not address.host.startswith("-")
        assert not address.user.startswith("-")
        assert address.host.isprintable()
    assert parse(found.login_line) == found
