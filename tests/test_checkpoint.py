"""Checkpoints: whole or not there, of this training or refused, nothing in them that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from jobs import checkpoint
from jobs.checkpoint import Checkpoint, Checkpoints
from jobs.errors import JobError


def made(step: int) -> Checkpoint:
    return Checkpoint(step, {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"step": step, "words": ["é", None]})


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        arrays_of.arrays(st.sampled_from([np.float32, np.float64, np.uint8, np.int64]), arrays_of.array_shapes()),
        min_size=1,
        max_size=4,
    )
)
def test_what_comes_back_is_what_was_saved(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Any]) -> None:
    kept = Checkpoints(tmp_path_factory.mktemp("checkpoints"), "me")
    kept.save(Checkpoint(3, arrays, {"x": [1, 2.5]}))
    found, problems = kept.latest()
    assert found is not None
    assert (found.step, found.state, problems) == (3, {"x": [1, 2.5]}, [])
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].tobytes() == array.tobytes()
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape


def test_the_newest_is_found_and_only_two_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "me")
    assert kept.latest() == (None, [])
    for step in (5, 10, 15, 10, 20):  # 10 again: a training went on from 5
        kept.save(made(step))
    found, _ = kept.latest()
    assert found is not None
    assert found.step == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


def cut(path: Path) -> None:
    (path / checkpoint.TENSORS).write_bytes((path / checkpoint.TENSORS).read_bytes()[:-4])


def flip(path: Path) -> None:
    content = bytearray((path / checkpoint.TENSORS).read_bytes())
    content[-1] ^= 1
    (path / checkpoint.TENSORS).write_bytes(content)


def no_json(path: Path) -> None:
    (path / checkpoint.STATE).write_text("{" * 10_000, "utf-8")


def no_state(path: Path) -> None:
    (path / checkpoint.STATE).unlink()


def pickled(path: Path) -> None:
    """With a hash that vouches for it: not even then is anything unpickled."""
    (path / checkpoint.TENSORS).write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    document = json.loads((path / checkpoint.STATE).read_text("utf-8"))
    document["sha256"] = checkpoint.sha256_of(path / checkpoint.TENSORS)
    (path / checkpoint.STATE).write_text(json.dumps(document), "utf-8")


@pytest.mark.parametrize("damage", [cut, flip, no_json, no_state, pickled, shutil.rmtree])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path: Path, damage: Any) -> None:
    kept = Checkpoints(tmp_path, "me")
    kept.save(made(5))
    kept.save(made(10))
    damage(tmp_path / "step-00000010")
    found, problems = kept.latest()
    assert found is not None
    assert found.step == 5
    assert len(problems) == (0 if damage is shutil.rmtree else 1)
    assert not Path("/tmp/pwned").exists()


def test_half_of_one_is_none(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "me")
    kept.save(made(5))
    shutil.copytree(tmp_path / "step-00000005", tmp_path / ".step-00000010.0123456789ab.part")
    found, problems = kept.latest()
    assert found is not None
    assert (found.step, problems) == (5, [])
    kept.save(made(10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000010"]


def test_one_of_another_training_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "them").save(made(5))
    with pytest.raises(JobError, match="a checkpoint of another training"):
        Checkpoints(tmp_path, "me").latest()


def test_a_place_that_cannot_be_written_to_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OSError):
        Checkpoints(tmp_path / "file" / "below", "me").save(made(1))
