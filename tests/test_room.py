"""How much of a disk a run takes, told part by part."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import recipe as recipes
from launcher.room import BESIDE_BYTES, FULL_BYTES, RESULT_BYTES, needed
from remote import environments
from remote.errors import BadReply

LINUX = {"python": [3, 11, 7], "platform": "linux-x86_64", "libc": "glibc 2.35"}


@dataclass
class There:
    """A host that answers `ready`, as an agent does."""

    lacks: Any = ""
    wanted: Any = None
    host: Any = field(default_factory=lambda: SimpleNamespace(name="box"))

    def call(self, verb: str, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        assert verb == "ready"
        return {"wanted": self.wanted} if request.get("wanted") else {"lacks": self.lacks}


def plan(model: str, pushed: bool = False) -> Any:
    spec = SimpleNamespace(model_name_or_path=model, model_revision="main")
    return SimpleNamespace(submission=SimpleNamespace(base_is_pushed=pushed, spec=spec))


def size(there: There, *asked: Any) -> int:
    return needed(there, recipes.recipe(), *asked).size_bytes  # type: ignore[arg-type]


def test_an_environment_counts_by_what_of_it_is_missing() -> None:
    assert size(There(), None) == 0  # ready, or the image's own will do
    assert size(There("beside"), None) == BESIDE_BYTES
    assert size(There("all"), None) == FULL_BYTES
    for said in ("much", None, 7, ["all"]):
        with pytest.raises(BadReply, match="^box: "):
            size(There(said), None)


@pytest.mark.parametrize(
    ("name", "size_bytes"),
    [
        ("Qwen/Qwen2.5-1.5B", 3_000_000_000),
        ("Qwen/Qwen3-0.6B-Base", 1_200_000_000),
        ("x/7b-chat", 14_000_000_000),
        ("google/bert-base-chinese", 0),
        ("x/v2.5Beta", 0),
    ],
)
def test_a_model_of_the_hub_counts_by_its_name(name: str, size_bytes: int, tmp_path, monkeypatch) -> None:
    found = needed(There(), recipes.recipe(), plan(name))  # type: ignore[arg-type]
    assert found.size_bytes == size_bytes + RESULT_BYTES
    assert ("of unknown size" in " ".join(found.words)) is not bool(size_bytes)
    assert size(There(), plan(name, pushed=True)) == RESULT_BYTES  # it is counted with what is sent


@pytest.mark.parametrize(
    "wanted",
    [
        {**LINUX, "requirement": "torch @ http://evil.example/torch.whl"},
        {**LINUX, "requirement": "--index-url=http://evil.example"},
        {**LINUX, "requirement": "", "platform": "linux-x86_64/../../etc"},
        {**LINUX, "requirement": "", "libc": "musl 1.2"},
        {**LINUX, "requirement": "", "python": []},
        {**LINUX, "requirement": "", "python": "abc"},
        {**LINUX, "requirement": "", "python": [float("inf"), 3]},
        {**LINUX, "requirement": "", "python": [3, -1]},
        {**LINUX, "requirement": "", "python": [3, 10**50]},
        {"requirement": ""},
        [],
    ],
)
def test_a_host_does_not_choose_what_is_fetched_for_it(wanted: Any) -> None:
    with pytest.raises(BadReply, match="^box: "):
        environments.wanted(There(wanted=wanted), recipes.recipe())  # type: ignore[arg-type]
