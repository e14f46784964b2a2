"""known_hosts against ssh's own reading of it: what stands there, what is added, what a replacement leaves alone."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paramiko import PKey

from remote.errors import RemoteError
from remote.ssh.host_keys import KnownHosts, Verdict, default_file, fingerprint, name_of

needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
needs_modes = pytest.mark.skipif(os.name == "nt", reason="needs POSIX modes and links")


def public(private):
    key_type, blob = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()
    return PKey.from_type_string(key_type.decode(), base64.b64decode(blob))


ED25519, OTHER, THIRD = (public(ed25519.Ed25519PrivateKey.generate()) for _ in range(3))
ECDSA = public(ec.generate_private_key(ec.SECP256R1()))
P384 = public(ec.generate_private_key(ec.SECP384R1()))
RSA = public(rsa.generate_private_key(65537, 2048))
KEYS = [ED25519, ECDSA, P384, RSA]


def text(key):
    return f"{key.get_name()} {key.get_base64()}"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "known_hosts"


@contextlib.contextmanager
def fresh():
    """A path for one example of many."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "known_hosts"


def keygen(*argv):
    return subprocess.run(["ssh-keygen", *map(str, argv)], capture_output=True, text=True, check=False)


def keygen_finds(path, name):
    """The keys that ssh-keygen finds for a name, as it prints them."""
    lines = keygen("-F", name, "-f", path).stdout.splitlines()
    return [" ".join(line.split()[1:3]) for line in lines if line and not line.startswith("#")]


# -- names


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("gpu", 22, "gpu"),
        ("GPU.Example.com", 22, "gpu.example.com"),
        ("Gpu", 39111, "[gpu]:39111"),
        ("::1", 22, "::1"),
        ("FE80::1%eth0", 2222, "[fe80::1%eth0]:2222"),
    ],
)
def test_names_are_those_of_ssh(host, port, name):
    assert name_of(host, port) == name


@needs_keygen
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path, kind):
    keygen("-q", "-t", kind, "-N", "", "-f", tmp_path / "key")
    key_type, blob, *_ = (tmp_path / "key.pub").read_text().split()
    shown = fingerprint(PKey.from_type_string(key_type, base64.b64decode(blob)))
    assert shown == f"{key_type} {keygen('-lf', tmp_path / 'key.pub').stdout.split()[1]}"


# -- what is on record


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ("gpu", "gpu"),
        ("GPU", "gpu"),
        ("gpu", "Gpu"),
        ("a,gpu,10.0.0.7", "gpu"),
        ("a,gpu,10.0.0.7", "10.0.0.7"),
        ("*", "gpu"),
        ("g?u", "gpu"),
        ("*.example.com", "a.b.example.com"),
        ("[gpu]:39111", "[gpu]:39111"),
        ("[*.example.com]:39111", "[a.example.com]:39111"),
        ("[gpu]:*", "[gpu]:39111"),
        ("[::1]:22", "[::1]:22"),
        ("*,!other", "gpu"),
        ("!other,gpu", "gpu"),
        ("::1", "::1"),
    ],
)
def test_a_key_on_record_is_known_and_another_is_a_change(file, names, asked):
    file.write_text(f"# people's own words\n\n{names} {text(ED25519)} somebody's\n")
    known = KnownHosts(file)
    same, other = known.check(asked, ED25519), known.check(asked, OTHER)
    assert (same.verdict, [str(record) for record in same.records]) == (Verdict.KNOWN, [f"{file}:3"])
    assert same.is_known
    assert same.expected == ()
    assert (other.verdict, [str(record) for record in other.records]) == (Verdict.CHANGED, [f"{file}:3"])
    assert other.is_changed
    assert other.expected == (ED25519,)
    # ssh would ask here; a host that shows another kind of key than before counts as changed for us.
    assert known.check(asked, ECDSA).is_changed
    assert known.key_types(asked) == ("ssh-ed25519",)


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ("gpu", "gpu2"),
        ("gpu", "10.0.0.7"),
        ("[gpu]:39111", "gpu"),
        ("[gpu]:39111", "[gpu]:39112"),
        ("[gpu]:39111", "g:39111"),
        ("*,!gpu", "gpu"),
        ("!gpu,gpu", "gpu"),
        ("gpu,!g*", "gpu"),
        ("!other", "gpu"),
        ("g??u", "gpu"),
        ("[g]pu", "gpu"),
        ("|1|gpu", "gpu"),
        ("|1||", "gpu"),
        ("|1|AAAA|AAAA", "gpu"),
        ("|2|x,gpu", "gpu"),
        ("#gpu", "gpu"),
        ("@revoked,gpu", "gpu"),
    ],
)
def test_lines_of_others_say_nothing(file, names, asked):
    file.write_text(f"{names} {text(ED25519)}\n")
    assert KnownHosts(file).check(asked, ED25519) == KnownHosts(file).check(asked, OTHER)
    assert KnownHosts(file).check(asked, ED25519).is_unknown
    assert KnownHosts(file).key_types(asked) == ()


def test_one_of_several_keys_is_enough_and_all_are_expected(file, tmp_path):
    also = tmp_path / "also"
    file.write_text(f"gpu {text(ECDSA)}\ngpu {text(ED25519)}\ngpu,b {text(ECDSA)}\n")
    also.write_text(f"gpu {text(RSA)}\n")
    known = KnownHosts(file, [also, tmp_path / "missing"])
    assert known.key_types("gpu") == ("ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa")
    assert all(known.check("gpu", key).is_known for key in (ECDSA, ED25519, RSA))
    changed = known.check("gpu", OTHER)
    assert changed.expected == (ECDSA, ED25519, ECDSA, RSA)
    assert [str(record) for record in changed.records] == [f"{file}:1", f"{file}:2", f"{file}:3", f"{also}:1"]


def test_a_port_of_which_nothing_is_known_may_show_the_key_of_port_22_and_no_other(file):
    file.write_text(f"gpu {text(ED25519)}\n[gpu]:1 {text(OTHER)}\n")
    known = KnownHosts(file)
    assert known.check("[gpu]:39111", ED25519).is_known
    assert known.check("[gpu]:39111", OTHER).is_unknown
    assert known.check("[gpu]:1", ED25519).is_changed
    assert known.key_types("[gpu]:39111") == ()


@pytest.mark.parametrize("names", ["gpu", "*", "g*,!b", "a,gpu"])
@pytest.mark.parametrize("asked", ["gpu", "[gpu]:39111"])
def test_a_revoked_key_is_revoked_whatever_else_stands_there(file, names, asked):
    file.write_text(f"{asked} {text(ED25519)}\n@revoked {names} {text(ED25519)}\n@revoked b {text(OTHER)}\n")
    standing = KnownHosts(file).check(asked, ED25519)
    assert standing.is_revoked
    assert [str(record) for record in standing.records] == [f"{file}:2"]
    assert KnownHosts(file).check(asked, OTHER).is_changed
    assert KnownHosts(file).key_types(asked) == ("ssh-ed25519",)


def test_a_revocation_in_a_file_that_is_only_read_counts(file, tmp_path):
    (tmp_path / "also").write_text(f"@revoked * {text(ED25519)}\n")
    file.write_text(f"gpu {text(ED25519)}\n")
    assert KnownHosts(file, [tmp_path / "also"]).check("gpu", ED25519).is_revoked


@pytest.mark.parametrize("marker", ["@cert-authority", "@other", "@", "@revoked @revoked"])
def test_other_markers_vouch_for_nothing(file, marker):
    file.write_text(f"{marker} gpu {text(ED25519)}\n")
    assert KnownHosts(file).check("gpu", ED25519).is_unknown
    assert KnownHosts(file).check("gpu", OTHER).is_unknown


def cut(key, length):
    return base64.b64encode(key.asbytes()[:length]).decode()


BAD_LINES = [
    "gpu", "gpu ssh-ed25519", "gpu ssh-ed25519 ", "gpu ssh-ed25519 AAAA", "gpu ssh-ed25519 !!!!", "gpu 1024 35 12345",
    f"gpu ssh-rsa {ED25519.get_base64()}", f"gpu ssh-ed25519 {ED25519.get_base64()[:-3]}",
    f"gpu ssh-ed25519 {cut(ED25519, 30)}", f"gpu ssh-rsa {cut(RSA, 60)}", f"gpu ssh-rsa {cut(RSA, 11)}",
    f"gpu ecdsa-sha2-nistp256 {cut(ECDSA, 50)}", f"gpu ecdsa-sha2-nistp256 {cut(P384, 200)}",
    f"gpu ecdsa-sha2-nistp256 {cut(ECDSA, 23)}", "gpu ssh-dss AAAAB3NzaC1kc3MAAACBAJ3",
    "gpu ssh-ed448 AAAACXNzaC1lZDQ0OA==",
    "@revoked", "@revoked gpu", "@revoked gpu ssh-ed25519", "@", "|1|", "|1|a|b ssh-ed25519 AAAA", " ", "\t", "\r", "#",
    f"{text(ED25519)}", "gpu ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "gpu \0 \0", "g\xfcu ssh-ed25519 \xfc", ", , ,",
]  # fmt: skip


# The keys differ from run to run, but not in how they begin.
@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:24])
def test_a_line_that_is_none_is_none(file, line):
    file.write_bytes(f"{line}\ngpu {text(ED25519)}".encode("latin-1"))
    known = KnownHosts(file)
    assert known.check("gpu", ED25519).is_known
    assert known.check("gpu", OTHER).expected == (ED25519,)
    assert known.key_types("gpu") == ("ssh-ed25519",)
    known.add("gpu", OTHER)
    assert file.read_bytes().startswith(line.encode("latin-1") + b"\n")
    known.replace("gpu", THIRD)
    assert known.check("gpu", ED25519).expected == (THIRD,)


@given(st.binary(max_size=200), st.sampled_from(["gpu", "[gpu]:39111", "", "|1|", "*", "!", "["]))
def test_no_bytes_make_it_fail(junk, name):
    with fresh() as path:
        path.write_bytes(junk)
        assert KnownHosts(path).check(name, ED25519).is_unknown
        assert KnownHosts(path).key_types(name) == ()


def test_what_windows_and_tabs_leave_behind_is_read(file):
    file.write_bytes(
        f"a {text(ED25519)}\r\n \t b\t{text(OTHER).replace(' ', chr(9) * 2)} \xfc\r\n".encode("latin-1")
        + f"@revoked\t*  {text(THIRD)}\r\n".encode()
    )
    known = KnownHosts(file)
    assert known.check("a", ED25519).is_known
    assert known.check("b", OTHER).is_known
    assert known.check("c", THIRD).is_revoked


def test_a_pattern_can_not_make_it_hang(file):
    file.write_text(f"{'*a' * 200}b {text(ED25519)}\n")
    assert KnownHosts(file).check("a" * 250, ED25519).is_unknown


# -- which files


def test_the_files_of_ssh_are_the_default(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    known = KnownHosts()
    assert known.path == default_file() == tmp_path / ".ssh" / "known_hosts"
    assert known.also[0] == tmp_path / ".ssh" / "known_hosts2"
    assert [file.name for file in known.also[1:]] == ["ssh_known_hosts", "ssh_known_hosts2"]
    assert KnownHosts(default_file()).also == known.also
    assert KnownHosts(tmp_path / "other").also == ()
    assert KnownHosts(also=[]).also == ()
    assert KnownHosts().check("gpu.invalid", ED25519).is_unknown


def test_a_file_that_can_not_be_read_is_named(file, tmp_path):
    file.mkdir()
    for known in (KnownHosts(file), KnownHosts(tmp_path / "other", [file])):
        for ask in (known.key_types, lambda name, known=known: known.check(name, ED25519)):
            with pytest.raises(RemoteError, match="known_hosts can't be read"):
                ask("gpu")
    with pytest.raises(RemoteError, match="known_hosts can't be read"):
        KnownHosts(file).add("gpu", ED25519)


# -- what is written


def test_a_new_file_holds_one_line(tmp_path):
    path = tmp_path / "home" / ".ssh" / "known_hosts"
    KnownHosts(path).add("GPU", ED25519)
    assert path.read_bytes() == f"gpu {text(ED25519)}\n".encode()


@needs_modes
def test_a_new_file_is_nobody_elses(tmp_path):
    before = os.umask(0o022)
    try:
        for write in (KnownHosts.add, KnownHosts.replace):
            path = tmp_path / write.__name__ / "known_hosts"
            write(KnownHosts(path), "gpu", ED25519)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_last_line_without_its_end_is_completed_first(file):
    file.write_bytes(b"# \xfc")
    KnownHosts(file).add("gpu", ED25519)
    assert file.read_bytes() == b"# \xfc\n" + f"gpu {text(ED25519)}\n".encode()


@pytest.mark.parametrize("line", ["gpu", "a,gpu", "*"])
def test_what_stands_there_is_not_added_again(file, line):
    file.write_text(f"{line} {text(ED25519)}")
    before = file.read_bytes()
    KnownHosts(file).add("gpu", ED25519)
    assert file.read_bytes() == before
    KnownHosts(file).add("gpu", OTHER)
    KnownHosts(file).add("gpu", OTHER)
    assert file.read_bytes() == before + f"\ngpu {text(OTHER)}\n".encode()


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a\nb", "a,b", "*", "a?", "!a", "#a", "@a", "|1|a", "a\0", "a\u00a0\n"]
)
def test_a_name_that_would_vouch_for_others_is_not_written(file, name):
    for write in (KnownHosts(file).add, KnownHosts(file).replace):
        with pytest.raises(RemoteError, match="name of a host"):
            write(name, ED25519)
    assert not file.exists()


def test_the_bytes_of_a_name_in_another_encoding_are_written_as_they_were(file):
    name = name_of(b"g\xfcu".decode("utf-8", "surrogateescape"), 22)
    KnownHosts(file).add(name, ED25519)
    assert file.read_bytes().startswith(b"g\xfcu ")
    assert KnownHosts(file).check(name, ED25519).is_known


def test_where_nothing_can_be_written_the_file_is_named(tmp_path):
    (tmp_path / "a file").write_text("")
    for write in (KnownHosts.add, KnownHosts.replace):
        with pytest.raises(RemoteError, match="a file"):
            write(KnownHosts(tmp_path / "a file" / "known_hosts"), "gpu", ED25519)


LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,8}[A-Za-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=3).map(".".join), st.ip_addresses().map(str), st.just("fe80::1%eth0")
)
PORTS = st.one_of(st.just(22), st.integers(1, 65535))
NAMES = st.builds(name_of, HOSTS, PORTS)


@needs_keygen
@settings(deadline=None, max_examples=50)
@given(name=NAMES, key=st.sampled_from(KEYS), hashed=st.booleans())
def test_what_is_added_is_known_here_and_to_ssh_keygen(name, key, hashed):
    with fresh() as path:
        if hashed:
            path.write_text(f"seed.invalid {text(THIRD)}\n")
            keygen("-H", "-f", path)
        KnownHosts(path).add(name, key)
        KnownHosts(path).add(name, key)
        assert KnownHosts(path).check(name, key).is_known
        assert KnownHosts(path).check(name, OTHER).is_changed
        assert KnownHosts(path).key_types(name) == (key.get_name(),)
        assert keygen_finds(path, name) == [text(key)]
        *_, added = path.read_text().splitlines()
        assert added.startswith("|1|" if hashed else f"{name} ")
        # And what ssh-keygen hashes is read here.
        keygen("-H", "-f", path)
        assert KnownHosts(path).check(name, key).is_known
        keygen("-R", name, "-f", path)
        assert KnownHosts(path).check(name, key).is_unknown


PATTERNS = st.lists(st.text("!*?ab.[]:2,", min_size=1, max_size=6), min_size=1, max_size=3).map(",".join)


@needs_keygen
@settings(deadline=None, max_examples=100)
@given(names=PATTERNS, asked=st.sampled_from(["a", "ab", "a.b", "[a]:2", "[ab]:2", "[a.b]:22", "b"]))
@example(names="!*,a", asked="a")
@example(names="a,,b", asked="b")
@example(names="[*]:2", asked="[ab]:2")
def test_patterns_mean_what_they_mean_to_ssh(names, asked):
    with fresh() as path:
        path.write_text(f"{names} {text(ED25519)}\n")
        assert KnownHosts(path).key_types(asked) == tuple(one.split()[0] for one in keygen_finds(path, asked))


# -- what is replaced


def test_a_replaced_key_is_gone_and_everything_else_stays(file):
    before = (
        "# mine\n"
        f"gpu {text(ED25519)} a comment\n"
        f"  a,GPU,b\t{text(ECDSA)}  theirs\n"
        f"g* {text(RSA)}\n"
        f"gpu,*.b {text(THIRD)}\n"
        f"@cert-authority gpu {text(ED25519)}\n"
        f"@revoked gpu {text(P384)}\n"
        f"other {text(ED25519)}\n"
        "gpu not-a-key"
    )
    file.write_bytes(before.encode())
    KnownHosts(file).replace("Gpu", OTHER)
    assert file.read_text() == (
        "# mine\n"
        f"  a,b\t{text(ECDSA)}  theirs\n"
        f"g* {text(RSA)}\n"
        f"*.b {text(THIRD)}\n"
        f"@cert-authority gpu {text(ED25519)}\n"
        f"@revoked gpu {text(P384)}\n"
        f"other {text(ED25519)}\n"
        "gpu not-a-key\n"
        f"gpu {text(OTHER)}\n"
    )
    assert KnownHosts(file).check("gpu", OTHER).is_known
    assert KnownHosts(file).check("gpu", ED25519).is_changed
    assert KnownHosts(file).check("a", ECDSA).is_known


def test_a_key_of_a_kind_that_paramiko_does_not_know_is_forgotten_too(file):
    sk = b"sk-ssh-ed25519@openssh.com"
    blob = base64.b64encode(len(sk).to_bytes(4, "big") + sk + bytes(40)).decode()
    file.write_text(f"gpu {sk.decode()} {blob}\n")
    assert KnownHosts(file).check("gpu", OTHER).is_unknown
    KnownHosts(file).replace("gpu", OTHER)
    assert file.read_text() == f"gpu {text(OTHER)}\n"


def test_a_line_that_holds_the_new_key_stays_where_it_is(file):
    file.write_text(f"gpu {text(ED25519)}\ngpu,b {text(OTHER)} here\nc {text(ED25519)}\n")
    KnownHosts(file).replace("gpu", OTHER)
    assert file.read_text() == f"gpu,b {text(OTHER)} here\nc {text(ED25519)}\n"


@needs_keygen
def test_a_hashed_name_is_replaced_by_a_hashed_name(file):
    file.write_text(f"gpu {text(ED25519)}\n[gpu]:39111 {text(ECDSA)}\n")
    keygen("-H", "-f", file)
    KnownHosts(file).replace("[gpu]:39111", OTHER)
    assert keygen_finds(file, "[gpu]:39111") == [text(OTHER)]
    assert keygen_finds(file, "gpu") == [text(ED25519)]
    assert all(line.startswith("|1|") for line in file.read_text().splitlines())


@given(
    junk=st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=6),
    place=st.integers(0, 6),
    ended=st.booleans(),
    names=st.sampled_from([b"gpu", b"a,gpu", b"gpu,!b"]),
)
def test_a_replacement_keeps_every_other_line_byte_for_byte(junk, place, ended, names):
    old = names + b" " + text(ED25519).encode()
    lines = [*junk[:place], old, *junk[place:]]
    rest = names.replace(b"gpu", b"").strip(b",")
    kept = [*junk[:place], *([rest + b" " + text(ED25519).encode()] if rest else []), *junk[place:]]
    with fresh() as path:
        path.write_bytes(b"\n".join(lines) + b"\n" * ended)
        KnownHosts(path).replace("gpu", OTHER)
        expected = b"".join(line + b"\n" for line in kept)
        if not ended and place < len(junk) and not junk[-1]:
            expected = expected[:-1]  # the last line was ended, and no empty one followed it
        assert path.read_bytes() == expected + b"gpu " + text(OTHER).encode() + b"\n"
        assert os.listdir(path.parent) == ["known_hosts"]


@needs_modes
def test_a_replacement_leaves_a_link_and_modes(tmp_path, file):
    kept = tmp_path / "dotfiles" / "known"
    kept.parent.mkdir()
    kept.write_text(f"gpu {text(ED25519)}\n")
    kept.chmod(0o644)
    file.symlink_to(kept)
    KnownHosts(file).replace("gpu", OTHER)
    assert file.is_symlink()
    assert kept.read_text() == f"gpu {text(OTHER)}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644
    assert os.listdir(kept.parent) == ["known"]


@needs_modes
def test_a_device_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(RemoteError, match="not a file"):
        KnownHosts(tmp_path / "null").replace("gpu", OTHER)
    assert not Path("/dev/null").is_file()


def test_nothing_is_replaced_while_a_file_that_is_only_read_says_otherwise(file, tmp_path):
    also = tmp_path / "also"
    file.write_text(f"gpu {text(ED25519)}\n")
    known = KnownHosts(file, [tmp_path / "missing", also])
    also.write_text(f"\na,gpu {text(ECDSA)}\n")
    with pytest.raises(RemoteError) as refusal:
        known.replace("gpu", OTHER)
    assert f"{also}:2" in refusal.value.message
    assert refusal.value.hint
    assert file.read_text() == f"gpu {text(ED25519)}\n"
    also.write_text(f"gpu {text(OTHER)}\n* {text(ECDSA)}\n@revoked gpu {text(ED25519)}\n")
    known.replace("gpu", OTHER)
    assert file.read_text() == f"gpu {text(OTHER)}\n"


# -- and ssh itself


@pytest.mark.ssh
def test_ssh_itself_believes_the_same_keys(sshd, file):
    key_type, blob = sshd.known_hosts_file.read_text().split()[1:3]
    shown = PKey.from_type_string(key_type, base64.b64decode(blob))
    port = sshd.port
    name = name_of(sshd.host, port)
    other = f"{name} {text(OTHER)}"
    verdicts = set()
    for content in (
        "",
        f"{name} {text(shown)}",
        f"{name} {text(shown)}\r",
        other,
        f"{other}\n{name} {text(shown)}",
        f"127.0.0.1 {text(shown)}",
        f"127.0.0.1 {text(OTHER)}",
        f"127.0.0.1 {text(shown)}\n{other}",
        f"* {text(shown)}",
        f"[127.0.0.?]:* {text(shown)}",
        f"*,!{name} {text(shown)}",
        f"@revoked * {text(shown)}\n{name} {text(shown)}",
        f"@revoked * {text(OTHER)}\n{name} {text(shown)}",
        f"@cert-authority * {text(shown)}",
        f"{name} {text(ECDSA)}\n{name} {text(shown)}",
    ):
        file.write_text(content + "\n", newline="")
        argv = ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={file}", "-o", "GlobalKnownHostsFile=none"]
        argv += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        argv += ["-o", "UpdateHostKeys=no", "-i", str(sshd.identity_file), "-p", str(port), sshd.address, "true"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        standing = KnownHosts(file).check(name, shown)
        assert standing.is_known == (done.returncode == 0), (content, done.stderr)
        assert standing.is_revoked == ("REVOKED" in done.stderr), (content, done.stderr)
        assert standing.is_changed == ("IDENTIFICATION HAS CHANGED" in done.stderr), (content, done.stderr)
        verdicts.add(standing.verdict)
    assert verdicts == set(Verdict)
