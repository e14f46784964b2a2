"""Over a hundred healthy adapters pass without a warning, and each way to break them is noticed by its check."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from breakages import BREAKAGES, Breakage
from corpus import KINDS, Recipe, base_of, make, others, recipes, told
from tiny import make_base_of

from jobs import base_tensors, explanations, verification
from jobs.checks import Check
from jobs.static_checks import check_adapter
from tests.conftest import REPOSITORY

RECIPES = list(recipes())
HEALTHY = [*RECIPES, *others()]
TRIED = 6
"""Adapters that each breakage is tried on, spread over bases, tasks, ranks and dtypes."""


@dataclass(frozen=True)
class Corpus:
    """Adapters by their recipes, made when they are first asked for."""

    folder: Path

    def adapter(self, recipe: Recipe) -> Path:
        folder = self.folder / str(HEALTHY.index(recipe)) / "adapter"
        return folder if folder.exists() else make(recipe, self.base(recipe.kind), folder)

    def base(self, kind: str) -> Path:
        return base_of(kind, self.folder / "bases")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


def test_the_corpus_is_as_large_and_as_varied_as_is_said() -> None:
    assert len(RECIPES) >= 100 and len(BREAKAGES) >= 40
    assert {recipe.kind for recipe in RECIPES} == set(KINDS)
    assert {recipe.dtype for recipe in RECIPES} == {"fp32", "bf16", "fp16"}
    assert {recipe.settings["r"] for recipe in RECIPES} >= {1, 2, 4, 8, 16, 32, 64}
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES)


def test_every_check_stands_in_the_docs_as_it_is_explained() -> None:
    text = (REPOSITORY / "docs" / "trust.md").read_text("utf-8")
    rows = text.split("<!-- checks")[1].split("\n\n")[0].splitlines()[3:]
    explained = explanations.STATIC | explanations.REPRODUCTION
    assert rows == [f"| `{name}` | {meaning} |" for name, (meaning, _) in explained.items()]


def test_the_table_in_the_docs_is_the_one_that_is_tested() -> None:
    text = (REPOSITORY / "docs" / "trust.md").read_text("utf-8")
    lines = text.split("<!-- breakages")[1].split("\n\n")[0].splitlines()[3:]
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert [(name, check.strip("`")) for name, _, check, _ in rows] == [(one.name, one.check) for one in BREAKAGES]
    assert all(caught.split("/")[0] == caught.split("/")[1] for _, _, _, caught in rows)
    said = [word for _, word, _, _ in rows]
    quiet, warned, stuck = said.count("**nothing**"), said.count("warns"), said.count("waits for ever")
    errors = len(said) - quiet - warned - stuck
    assert f"{len(HEALTHY)} healthy adapters, {len(BREAKAGES)} ways to break them" in text
    assert (
        f"error for {errors}, a warning for {warned}, waits for ever for {stuck}, and loads {quiet} without"
        in text.replace("\n", " ")
    )


@pytest.mark.parametrize("recipe", HEALTHY, ids=lambda recipe: recipe.name)
def test_a_healthy_adapter_has_no_fail_and_no_warning(corpus: Corpus, recipe: Recipe) -> None:
    folder, base = corpus.adapter(recipe), corpus.base(recipe.kind)
    for known in (base, None):
        verdict = verification.verify_adapter_folder(folder, known)
        assert [check for check in verdict.checks if check.status in ("fail", "warn")] == []
        assert verdict.ok


def suited(breakage: Breakage) -> list[Recipe]:
    """The recipes that a breakage is tried on."""
    every = [recipe for recipe in RECIPES if breakage.suits(recipe)]
    if breakage.told:
        every = [recipe for recipe in every if recipe.task == "SEQ_CLS" and recipe.dtype == "fp32"]
    return every[:: max(1, len(every) // TRIED)][:TRIED]


def found_in(corpus: Corpus, breakage: Breakage, recipe: Recipe, folder: Path) -> dict[str, Check]:
    """The checks by id, of a copy in `folder` that was damaged."""
    broken, base = Path(shutil.copytree(corpus.adapter(recipe).parent, folder)) / "adapter", corpus.base(recipe.kind)
    facts = told(broken, base) if breakage.told else None
    breakage.damage(broken)
    if breakage.other_base:
        base = make_base_of(recipe.kind, folder / "base", initializer_range=0.1)
    return {check.id: check for check in check_adapter(broken, base=base_tensors.of_folder(base), told=facts)}


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_a_broken_adapter_is_caught_by_the_check_that_is_named(
    corpus: Corpus, breakage: Breakage, tmp_path: Path
) -> None:
    assert suited(breakage)
    for number, recipe in enumerate(suited(breakage)):
        found = found_in(corpus, breakage, recipe, tmp_path / str(number))
        check = found[breakage.check]
        assert check.status == "fail", (recipe.name, {c.id: c.detail for c in found.values() if c.status == "fail"})
        assert check.required and check.meaning and check.todo
        assert check.detail.isascii() and check.detail.isprintable() and len(check.detail) < 600
