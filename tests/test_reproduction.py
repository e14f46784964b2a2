"""Reproduction and the verdict: a trained adapter reproduces its probes, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_adapter
import torch
from peft.tuners.lora.layer import Linear
from safetensors.torch import load_file, save_file
from tiny_adapter import ID2LABEL, MAX_LENGTH, TinyRun

from benchmarks import reproduction as figures
from jobs import adapter, base_model, explanations, manifest, probes, reproduction, safetensors_file, verification
from jobs import model as models
from jobs.checks import HERE, ON_HOST, STATIC, Check, Verdict
from jobs.errors import AdapterRejected
from jobs.run_directory import RunDirectory


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return tiny_adapter.shared_run(tmp_path_factory)


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> TinyRun:
    artifacts = Path(shutil.copytree(tiny_run.artifacts, tmp_path / "run-aaaaaaaa" / "artifacts"))
    return TinyRun(tiny_run.base, artifacts, tiny_run.initial)


def reproduce(run: TinyRun, where: reproduction.Where = "home", base: Path | None = None) -> dict[str, Check]:
    checks = reproduction.reproduce(run.adapter, run.probes, base or run.base, where=where)
    return {check.id: check for check in checks}


def not_passed(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.status for name, check in checks.items() if check.status != "pass"}


def change_tensors(run: TinyRun, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    path = run.adapter / adapter.WEIGHTS
    held = {key: change(key, value) for key, value in load_file(path).items()}
    save_file(held, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"steps": 1},
        {"dtype": torch.bfloat16, "r": 1},
        {"use_rslora": False, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1},
    ],
    ids=["float32", "one step", "bfloat16", "q and v"],
)
def test_a_healthy_adapter_reproduces(tmp_path: Path, training: dict[str, Any]) -> None:
    base = tiny_adapter.make_base(tmp_path / "base", dtype=training.get("dtype", torch.float32))
    run = tiny_adapter.make_run(tmp_path, base, **training)
    checks = reproduce(run, "host")
    assert not_passed(checks) == {}
    asked_with_rows = {"validation", "degenerate_validation"}
    assert checks.keys() == explanations.REPRODUCTION.keys() - asked_with_rows
    assert "as_trained" not in reproduce(run, "home")


@pytest.mark.slow
def test_trained_in_bf16_and_verified_at_home_in_float32(tmp_path: Path) -> None:
    made = figures.bases(tmp_path)
    found = [figures.misses(case, made[case.kind], tmp_path / str(n)) for n, case in enumerate(figures.cases())]
    assert len(found) == 20 and not [one.failed for one in found if one.failed]
    assert max(one.healthy for one in found) < 0.01
    assert min(one.emptied for one in found) > 10 and min(one.new_head for one in found) > 10
    # In training's own precision the same adapters would be refused.
    assert max(one.in_bf16 for one in found) > 1


def test_one_class_for_every_probe_is_a_warning(tiny_run: TinyRun, tmp_path: Path) -> None:
    stored, logits = probes.load(tiny_run.probes)
    alike = [text for text, answer in zip(stored.texts, logits[probes.PORTABLE], strict=True) if answer[1] > answer[0]]
    model = adapter.load(tiny_run.base, tiny_run.adapter, dtype=torch.float32, id2label=ID2LABEL)
    run = TinyRun(tiny_run.base, tiny_adapter.save_run(model, tiny_run.base, tmp_path / "a", texts=alike), {})
    checks = reproduce(run)
    assert not_passed(checks) == {"degenerate": "warn"} and not checks["degenerate"].required
    assert checks["degenerate"].detail == f"100% of {len(alike)} probes get 'good'"


def test_a_merge_that_goes_wrong_fails(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a PEFT that adds the update without its scale."""
    right = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: right(self, name) / self.scaling[name])
    assert not_passed(reproduce(tiny_run)) == {"merged": "fail"}


def test_merging_is_exact_but_for_rounding_and_the_model_is_right_before(tiny_run: TinyRun) -> None:
    checks = reproduce(tiny_run)
    assert all((checks[name].tolerances or 0) < 1e-3 for name in ("portable", "same_base", "batch_of_one", "merged"))
    assert all((checks[name].tolerances or 0) > 10 for name in ("emptied_control", "head_control"))


def test_an_emptied_adapter_fails(copy: TinyRun) -> None:
    change_tensors(copy, lambda key, value: torch.zeros_like(value) if ".lora_B." in key else value)
    failed = not_passed(reproduce(copy))
    assert {"portable", "adapter_matters", "argmax"} <= failed.keys() and "same_base" not in failed


def test_a_new_head_fails(copy: TinyRun) -> None:
    torch.manual_seed(1)
    change_tensors(copy, lambda key, v: torch.randn_like(v) * 0.2 if "score" in key else v)
    assert {"portable", "same_base"} <= not_passed(reproduce(copy)).keys()


def test_a_swapped_base_fails(copy: TinyRun, tmp_path: Path) -> None:
    other = tiny_adapter.make_base(tmp_path / "other", seed=1)
    assert {"portable", "same_base"} <= not_passed(reproduce(copy, base=other)).keys()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without_a_layer(path: Path) -> None:
    save_file({key: value for key, value in load_file(path).items() if ".0.mlp.up" not in key}, path, {"format": "pt"})


def of_another_shape(path: Path) -> None:
    held = load_file(path)
    save_file({key: v[:8] if ".0.mlp.up" in key else v for key, v in held.items()}, path, {"format": "pt"})


@pytest.mark.parametrize("harm", [cut, without_a_layer, of_another_shape])
def test_a_base_that_is_not_whole_is_refused_not_filled_up(
    tiny_run: TinyRun, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    base = Path(shutil.copytree(tiny_run.base, tmp_path / "base"))
    harm(base / "model.safetensors")
    checks = reproduce(tiny_run, base=base)
    assert not_passed(checks) == {"loads": "fail"} and str(base) in checks["loads"].detail


def test_the_adapter_of_another_run_fails(copy: TinyRun, tmp_path: Path) -> None:
    other = tiny_adapter.make_run(tmp_path / "other", copy.base, seed=7)
    shutil.rmtree(copy.adapter)
    shutil.copytree(other.adapter, copy.adapter)
    assert "portable" in not_passed(reproduce(copy))


def test_weights_that_were_hardly_trained_fail_in_words(tiny_run: TinyRun, tmp_path: Path) -> None:
    model, initial = tiny_adapter.train(tiny_run.base, steps=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-9)
    run = TinyRun(tiny_run.base, tiny_adapter.save_run(model, tiny_run.base, tmp_path / "a"), initial)
    checks = reproduce(run)
    assert checks["distance"].status == "fail" and "next to nothing" in checks["distance"].meaning
    assert checks["adapter_matters"].status == "fail"


def test_never_trained_at_all_fails(tiny_run: TinyRun, tmp_path: Path) -> None:
    model, initial = tiny_adapter.train(tiny_run.base, steps=0)
    run = TinyRun(tiny_run.base, tiny_adapter.save_run(model, tiny_run.base, tmp_path / "a"), initial)
    failed = not_passed(reproduce(run))
    assert {"distance", "portable", "adapter_matters", "emptied_control"} <= failed.keys()


def test_a_base_changed_in_memory_fails(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The base trained along, by mistake: what is saved can't reproduce what was measured."""
    model, initial = tiny_adapter.train(tiny_run.base)
    with torch.no_grad():
        model.get_base_model().model.norm.weight.mul_(1.5)
    run = TinyRun(tiny_run.base, tiny_adapter.save_run(model, tiny_run.base, tmp_path / "a"), initial)
    assert not_passed(reproduce(run, "host")).keys() == {"as_trained"}


def test_another_tokenizer_fails(copy: TinyRun) -> None:
    path = copy.adapter / "tokenizer.json"
    document = json.loads(path.read_text())
    words = document["model"]["vocab"]
    words["w1"], words["w2"] = words["w2"], words["w1"]
    path.write_text(json.dumps(document))
    assert not_passed(reproduce(copy)) == {"tokenizer": "fail"}


@pytest.mark.parametrize("change", [{"lora_alpha": 16}, {"use_rslora": False}, {"alpha_pattern": {"q_proj": 32}}])
def test_another_scaling_fails(copy: TinyRun, change: dict[str, Any]) -> None:
    """The file's numbers are as they were; what they are multiplied by is not."""
    path = copy.adapter / adapter.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "portable" in not_passed(reproduce(copy))


def test_a_missing_head_is_refused_not_made_up(copy: TinyRun) -> None:
    path = copy.adapter / adapter.WEIGHTS
    save_file({key: value for key, value in load_file(path).items() if "score" not in key}, path)
    assert not_passed(reproduce(copy)) == {"loads": "fail"}


@pytest.mark.parametrize(
    "change",
    [
        {"attention": "somebody/kernel"},
        {"dtype": "Tensor"},
        {"token_ids": []},
        {"token_ids": [["a"]]},
        {"extra": 1},
        {"matmul_precision": "none"},
        {"texts": [1]},
        {"id2label": {"x": "y", "0": "z"}},
        {"id2label": ["bad", "good"]},
        {"id2label": {"0": "bad", "1": 1}},
        {"id2label": {str(number): "x" for number in range(2**16 + 1)}},
        {"max_length": float("inf")},
        {"max_length": "24"},
        {"texts": "x" * 32},
        {"texts": ["x"] * 300, "token_ids": [[1]] * 300},
    ],
)
def test_damaged_probes_fail(copy: TinyRun, change: dict[str, Any]) -> None:
    path = copy.probes / probes.DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not_passed(reproduce(copy)) == {"probes": "fail"}


def test_probe_logits_that_are_not_numbers_fail(copy: TinyRun) -> None:
    stored, logits = probes.load(copy.probes)
    logits[probes.PORTABLE][0, 0] = np.nan
    safetensors_file.write(copy.probes / probes.TENSORS, logits)
    assert not_passed(reproduce(copy)) == {"probes": "fail"}


def test_recording_leaves_the_model_as_it_was(tiny_run: TinyRun, tmp_path: Path) -> None:
    model, _ = tiny_adapter.train(tiny_run.base, steps=1)
    model.train()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = adapter.fingerprints(model)
    tiny_adapter.save_run(model, tiny_run.base, tmp_path / "a")
    assert model.training and adapter.fingerprints(model) == before
    assert trainable == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_without_lora_keeps_the_trained_head(tiny_run: TinyRun) -> None:
    stored, logits = probes.load(tiny_run.probes)
    model = adapter.load(tiny_run.base, tiny_run.adapter, dtype=torch.float32, id2label=ID2LABEL, attention="eager")
    with probes.without_lora(model):
        off = probes.forward(model, stored)
    head = models.head_of(model).weight.numpy()
    assert np.allclose(off.logits, off.pooled @ head.T, atol=1e-5)
    assert np.array_equal(off.logits, logits[probes.WITHOUT_LORA])
    assert np.array_equal(probes.forward(model, stored).logits, logits[probes.PORTABLE])


def test_broken_weights_give_no_probes(tiny_run: TinyRun, tmp_path: Path) -> None:
    model, _ = tiny_adapter.train(tiny_run.base, steps=1)
    with torch.no_grad():
        models.head_of(model).weight[0, 0] = float("nan")
    with pytest.raises(AdapterRejected, match="not finite"):
        tiny_adapter.save_run(model, tiny_run.base, tmp_path / "a")
    assert not (tmp_path / "a" / "probes").exists()


def test_a_tokenizer_that_knows_none_of_the_words_gives_no_probes(tiny_run: TinyRun, tmp_path: Path) -> None:
    model, _ = tiny_adapter.train(tiny_run.base, steps=1)
    tokenizer = adapter.load_tokenizer(tiny_run.adapter)
    with pytest.raises(AdapterRejected, match="same tokens for every"):
        probes.record(
            model, tokenizer, ["你", "好"], base_folder=tiny_run.base, max_length=MAX_LENGTH,
            id2label=ID2LABEL, folder=tmp_path / "probes",
        )  # fmt: skip


# --- the verdict ---------------------------------------------------------------------------------

TOLD = {"label_names": [*tiny_adapter.ID2LABEL.values()]}


def finish(run: TinyRun, **verdict: Any) -> RunDirectory:
    """The run directory as it looks when the run is over."""
    directory = RunDirectory(run.artifacts.parent)
    saved = {key: adapter.array_fingerprint(array) for key, array in run.arrays().items()}
    base = {"weights_sha256": base_model.weight_files(run.base)}
    files = {entry.path: entry.sha256 for entry in manifest.list_files(run.adapter)}
    told = TOLD | {"initial": run.initial, "saved": saved, "base": base, "adapter_files": files}
    directory.training.write_text(json.dumps(told))
    if verdict:
        directory.host_verification.write_text(json.dumps(verdict))
    text = manifest.dump(manifest.list_files(directory.artifacts))
    directory.manifest.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    directory.result.write_text(json.dumps({"state": "succeeded", "manifest_sha256": digest}))
    return directory


def unmet(verdict: Verdict) -> set[str]:
    return {check.id for check in verdict.unmet}


def test_reproduced_here_in_a_fresh_process(copy: TinyRun) -> None:
    verdict = verification.verify(finish(copy), base_folder=copy.base, where="home")
    assert verdict.ok and verdict.level == HERE
    assert {check.status for check in verdict.checks} == {"pass"}
    assert verdict.to_json()["ok"] is True and json.dumps(verdict.to_json())


def test_the_fresh_process_speaks_of_its_end(copy: TinyRun, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    checks = reproduction.in_fresh_process(copy.adapter, copy.probes, empty, where="home")
    assert [check.id for check in checks if check.status == "fail"] == ["loads"]
    assert reproduction._crashed(-9, "").status == "fail"
    assert reproduction._crashed(1, "ModuleNotFoundError: No module named 'torch'").status == "not_checked"


def test_at_home_without_a_base_the_hosts_word_is_named(copy: TinyRun) -> None:
    verdict = verification.verify(finish(copy, ok=True, level=ON_HOST), base_folder=None, where="home")
    assert verdict.ok and verdict.level == ON_HOST
    assert {c.id for c in verdict.checks if c.status == "not_checked"} == {
        "modules",
        "shapes",
        "update_size",
        "base",
        "reproduction",
    }


@pytest.mark.parametrize("word", [{}, {"ok": False, "level": ON_HOST}, {"ok": True, "level": "static"}])
def test_without_a_base_and_the_hosts_word_nothing_is_ok(copy: TinyRun, word: dict[str, Any]) -> None:
    verdict = verification.verify(finish(copy, **word), base_folder=None, where="home")
    assert not verdict.ok and verdict.level == STATIC and unmet(verdict) == {"host_verdict"}


def test_static_only_says_so(copy: TinyRun) -> None:
    verdict = verification.verify(finish(copy), base_folder=copy.base, where="home", static_only=True)
    assert verdict.ok and verdict.level == STATIC
    assert [c.id for c in verdict.checks if c.status != "pass"] == ["reproduction"]


def test_on_the_host_without_its_base_nothing_is_ok(copy: TinyRun) -> None:
    directory = RunDirectory(copy.artifacts.parent)
    directory.training.write_text(json.dumps(TOLD | {"initial": copy.initial}))
    verdict = verification.verify(directory, base_folder=None, where="host")
    assert unmet(verdict) == {"reproduction"}


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: (run.adapter / "classifier.json").write_text("{}"),
        lambda run: (run.artifacts / "stowaway").write_text("x"),
        lambda run: run.manifest.write_text(run.manifest.read_text() + " "),
        lambda run: run.manifest.write_text("[" * 100_000),
        lambda run: run.result.write_text("{}"),
        lambda run: run.result.unlink(),
    ],
    ids=["changed file", "file too many", "other manifest", "manifest bomb", "no hash", "no result"],
)
def test_files_that_nobody_vouches_for(copy: TinyRun, harm: Callable[[RunDirectory], Any]) -> None:
    directory = finish(copy, ok=True, level=ON_HOST)
    harm(directory)
    verdict = verification.verify(directory, base_folder=None, where="home", static_only=True)
    assert not verdict.ok and "manifest" in unmet(verdict)


def test_a_run_without_its_fingerprints_is_not_ok(copy: TinyRun) -> None:
    directory = RunDirectory(copy.artifacts.parent)
    directory.training.write_text(json.dumps(TOLD))
    verdict = verification.verify(directory, base_folder=copy.base, where="host", static_only=True)
    assert unmet(verdict) == {"moved"}


def test_a_run_that_does_not_tell_its_labels_is_not_ok(copy: TinyRun) -> None:
    directory = RunDirectory(copy.artifacts.parent)
    directory.training.write_text(json.dumps({"initial": copy.initial}))
    verdict = verification.verify(directory, base_folder=copy.base, where="host", static_only=True)
    assert unmet(verdict) == {"classifier"}


def test_a_foreign_folder_is_checked_statically(tiny_run: TinyRun, tmp_path: Path) -> None:
    verdict = verification.verify_adapter_folder(tiny_run.adapter, tiny_run.base)
    assert verdict.ok and verdict.level == STATIC
    assert {c.id for c in verdict.checks if c.status == "not_checked"} == {"moved", "saved", "base", "reproduction"}
    assert unmet(verification.verify_adapter_folder(tiny_run.adapter, tmp_path)) == {"base"}
    assert "files" in unmet(verification.verify_adapter_folder(tmp_path, None))


def test_a_verdict_of_nothing_is_not_ok() -> None:
    assert not Verdict(STATIC, ()).ok
    assert not Verdict(STATIC, (Check("a", "not_checked", "", required=False),)).ok
    assert not Verdict(STATIC, (Check("a", "warn", ""),)).ok
