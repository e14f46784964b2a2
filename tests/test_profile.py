"""Kinds of rented machines: recognised by evidence, refused before anything is tried; one's own counts first."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from remote import facts, profile
from remote.errors import CannotExecute, RemoteError
from remote.facts import Facts
from remote.probe import arguments
from remote.profile import BadProfile, Evidence, Profile, Profiles, UnknownProfile, load

CAPTURED = Path(__file__).parent / "captured"


def captured(name: str) -> Facts:
    return facts.parse(facts.split((CAPTURED / name).read_bytes(), "c0ffee"))


def own(folder: Path, text: str) -> Path:
    file = folder / "profiles.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        ("autodl-4090.txt", "connect.westb.seetacloud.com", "autodl"),
        ("autodl-4090.txt", "127.0.0.1", "autodl"),
        ("autodl-4090.txt", "", "autodl"),
        ("autodl-no-gpu-mode.txt", "connect.bjb1.seetacloud.com", "autodl"),
        ("autodl-pro-5090.txt", "connect.westc.seetacloud.com", "autodl-pro"),
        ("autodl-pro-5090.txt", "", "autodl-pro"),
        ("runpod-old-driver.txt", "203.0.113.7", "runpod"),
        ("lambda-h100.txt", "203.0.113.8", "lambda"),
        ("vast-tmux.txt", "ssh5.vast.ai", "vast-tmux"),
        ("vast-tmux.txt", "203.0.113.9", "vast-tmux"),
        ("debian-dash.txt", "box.example.com", "plain"),
        ("debian-dash.txt", "", "plain"),
        ("debian-dash.txt", "hz.matpool.com", "matpool"),
        ("debian-dash.txt", "I-1.GPUshare.com.", "gpushare"),
    ],
)
def test_recognised(name: str, address: str, expected: str) -> None:
    assert load().recognise(captured(name), address).name == expected


def test_vast_without_its_tmux_is_just_vast() -> None:
    found = captured("vast-tmux.txt")
    calm = replace(found, paths={**found.paths, "~/.no_auto_tmux": True})
    assert load().recognise(calm, "ssh5.vast.ai").name == "vast"
    # Whether it is there could not be found out: nothing is refused for that.
    assert load().recognise(replace(found, paths={}), "ssh5.vast.ai").name == "vast"


def test_what_only_an_address_tells() -> None:
    known = load()
    assert [
        found and found.name
        for found in map(
            known.by_address,
            ("ssh.runpod.io", "connect.nmb1.seetacloud.com", "ssh4.vast.ai", "example.com", "", "evil-seetacloud.com"),
        )
    ] == ["runpod-proxy", "autodl", "vast", None, None, None]


def test_a_login_that_can_not_work_is_refused_before_it_is_tried() -> None:
    with pytest.raises(CannotExecute, match=r"ssh\.runpod\.io: RunPod's SSH proxy: .*no commands") as failure:
        load().refuse("ssh.runpod.io")
    assert "exposed TCP" in failure.value.hint
    for fine in ("connect.westb.seetacloud.com", "ssh4.vast.ai", "203.0.113.7", ""):
        load().refuse(fine)
    with pytest.raises(CannotExecute) as failure:
        load().named("vast-tmux").refuse("box")
    assert "touch ~/.no_auto_tmux" in failure.value.hint


def test_a_name_that_is_not_known_is_answered_with_those_that_are() -> None:
    assert load().named("autodl").title == "AutoDL"
    with pytest.raises(UnknownProfile, match="autodll") as failure:
        load().named("autodll")
    assert "autodl, autodl-pro" in failure.value.hint
    assert "runpod-proxy" not in failure.value.hint
    assert isinstance(failure.value, RemoteError)


def test_only_autodl_may_be_switched_off_from_inside() -> None:
    safe = {one.name for one in load().all() if one.poweroff.safe}
    assert safe == {"autodl", "autodl-pro"}
    for name in safe:
        assert load().named(name).poweroff.command == ("/bin/sh", "/usr/bin/shutdown")
        assert "15 days after power-off the box is released and its data deleted" in load().named(name).keeps


def test_every_supplied_profile_says_what_a_person_wants_to_know() -> None:
    for one in load().all():
        assert one.title
        if one.refusal:
            assert one.hint
        else:
            assert one.keeps
            assert one.workspaces[-1] == profile.CACHE
            assert one.mirrors
        if one.name != "plain":
            assert one.recognise != Evidence()


def test_what_a_folder_survives() -> None:
    autodl = load().named("autodl")
    assert autodl.survives("/root/autodl-tmp/launch/runs") == "power-off; not saved in images"
    assert autodl.survives("/root/autodl-tmp") == "power-off; not saved in images"
    assert autodl.survives("/root/autodl-tmp2") == "power-off; saved in images"
    assert autodl.survives("/root/autodl-fs/x").startswith("power-off and release")
    assert load().named("plain").survives("/anything") == ""
    assert load().named("runpod").survives("/root") == ""


@pytest.mark.parametrize(
    ("name", "kind", "misses"),
    [
        ("autodl-4090.txt", "autodl", False),
        ("autodl-no-gpu-mode.txt", "autodl", True),
        ("autodl-no-gpu-mode.txt", "plain", True),
        ("debian-dash.txt", "autodl", True),
        ("debian-dash.txt", "plain", False),
        ("stuck.txt", "autodl", False),
    ],
)
def test_a_gpu_that_should_be_there(name: str, kind: str, misses: bool) -> None:
    assert load().named(kind).misses_gpu(captured(name)) is misses


# --- a person's own file ----------------------------------------------------------------------------------------------


def test_no_file_is_no_profiles_of_ones_own(tmp_path: Path) -> None:
    assert load(tmp_path / "missing.toml") == load() == load(own(tmp_path, ""))


def test_ones_own_profile_counts_first_and_replaces_its_namesake_whole(tmp_path: Path) -> None:
    file = own(
        tmp_path,
        '\ufeff[lab]\ntitle = "our lab"\nrecognise.hostname = ["autodl-container-b8*"]\nworkspaces = ["/data/me"]\n'
        'poweroff = { command = ["/sbin/poweroff"], safe = true }\n'
        '[autodl]\ntitle = "mine"\n',
    )
    known = load(file)
    assert known.recognise(captured("autodl-4090.txt"), "connect.westb.seetacloud.com").name == "lab"
    assert known.named("autodl") == Profile("autodl", "mine")
    assert known.recognise(captured("autodl-pro-5090.txt")).name == "autodl-pro"
    assert [one.name for one in known.all()][:2] == ["lab", "autodl"]
    assert len(known.all()) == len(load().all()) + 1
    assert "w:/data/me" in arguments(known, None, "", [])


def test_all_that_is_wrong_is_said_at_once_with_the_keys_there_are(tmp_path: Path) -> None:
    file = own(
        tmp_path,
        """
toplevel = 3
[Bad_Name]
title = "x"
[a]
colour = "red"
workspaces = []
expects_gpu = "yes"
pythons = "python3"
mirrors = ["https://me:secret@x/", 7]
ids = ["NOT-A-NAME"]
durable = [{path = "relative", survives = "x"}, {path = "/x"}, 5]
recognise = {hostname = "box", adress = ["x"], paths = ["nowhere"]}
poweroff = {safe = true}
[b]
title = 5
recognise = []
network_hook = "hook"
""",
    )
    with pytest.raises(BadProfile) as failure:
        load(file)
    said = failure.value.message
    for key in (
        "toplevel: not a table", "Bad_Name: a profile's name", "a.colour: unknown; allowed keys: title, recognise",
        "a.title: missing", "a.workspaces: at least one", "a.expects_gpu: neither", "a.pythons: not a list",
        "a.mirrors[0]: not an http address", "a.mirrors[1]: not a text", "a.ids[0]: not the name of a variable",
        "a.durable[0].path: not a path", "a.durable[1].survives: missing", "a.durable[2]: not a table",
        "a.recognise.hostname: not a list", "a.recognise.adress: unknown; allowed keys: address, hostname",
        "a.recognise.paths[0]: not a path", "a.poweroff.command: needed", "b.title: not a text",
        "b.recognise: not a table; allowed keys: address", "b.network_hook: not a path",
    ):  # fmt: skip
        assert key in said
    assert str(file) in said
    assert "secret" not in said
    assert failure.value.hint


@pytest.mark.parametrize("text", ["[a", "a = ", "[a]\nx = " + "[" * 5000, "[a]\ntitle = '" + "x" * 2000 + "'"])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadProfile) as failure:
        load(own(tmp_path, text))
    assert failure.value.hint


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"[a]\ntitle = '\xff'\n")
    for path in (tmp_path, tmp_path / "latin"):
        with pytest.raises(BadProfile, match="can't be read"):
            load(path)


def test_no_pattern_takes_long() -> None:
    evil = Profile("evil", "evil", Evidence(hostname=("*a" * 200 + "b", "[" * 500), address=("*a*" * 200,)))
    known = Profiles((evil,), load().supplied)
    found = replace(captured("debian-dash.txt"), hostname="a" * 500)
    begun = time.monotonic()
    assert known.recognise(found, "a" * 5000).name
    assert time.monotonic() - begun < 2


# --- what a probe asks for --------------------------------------------------------------------------------------------


def words(kind: str, known: Profiles, one: Profile | None = None, workspace: str = "") -> list[str]:
    return [word[2:] for word in arguments(known, one, workspace, []) if word.startswith(f"{kind}:")]


def test_on_a_machine_not_known_only_tell_tale_folders_are_tried() -> None:
    assert words("w", load()) == ["/root/autodl-tmp", "/workspace", "/hy-tmp", "/home/featurize/work", "~/.cache"]
    # A person may have anything in /mnt: only an address tells of that kind.
    assert words("w", load(), load().named("matpool")) == ["/mnt", "~/.cache"]
    assert words("w", load(), load().named("autodl")) == ["/root/autodl-tmp", "~/.cache"]
    assert words("w", load(), load().named("autodl"), "/data") == ["/data"]


def test_whatever_tells_of_a_kind_is_always_asked_for() -> None:
    for one in (None, load().named("plain")):
        assert {"/root/autodl-tmp", "/etc/network_turbo", "~/.no_auto_tmux", "/hy-tmp"} <= {*words("x", load(), one)}
        assert {"AutoDLContainerUUID", "RUNPOD_POD_ID"} <= {*words("i", load(), one)}
        assert {"RUNPOD_POD_ID", "VAST_CONTAINERLABEL"} == {*words("e", load(), one)}
    assert words("p", load(), load().named("featurize"))[0] == "/environment/miniconda3/bin/python"


def test_a_variable_with_an_impossible_name_never_reaches_a_shell() -> None:
    for wrong in ("a b", "x}$(id)", "", "1A"):
        with pytest.raises(ValueError, match="names of variables"):
            arguments(Profiles(supplied=(Profile("x", "x", ids=(wrong,)),)), None, "", [])
