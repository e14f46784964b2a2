"""`launch evaluate` as a person meets it where the run's folder, the data or the base are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tiny import make_base, make_run

from jobs import submission
from jobs.__main__ import main as jobs_main
from jobs.evaluation import at_home
from jobs.questions import Asked
from jobs.run_directory import RunDirectory
from tests.conftest import Cli


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("runs"), base, rows=120, baselines=["majority"])
    assert jobs_main(["train", str(run.root)]) == 0
    assert jobs_main(["finish", str(run.root)]) == 0
    return run


@pytest.fixture
def run(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    """As it lies here after a pull."""
    return RunDirectory(Path(shutil.copytree(trained.root, tmp_path / trained.run_id)))


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """One home for all: a Python that can evaluate is looked for once."""
    return Cli(tmp_path_factory.mktemp("laptop"))


@pytest.mark.parametrize("name", ["plots", ".inferring.logits", "evaluations"])
def test_nothing_is_written_through_a_link_out_of_the_run(
    cli: Cli, run: RunDirectory, base: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run.root / name).symlink_to(elsewhere)
    (tmp_path / "more.csv").write_text("text,label\n好,good\n")
    data = ["--data", str(tmp_path / "more.csv")] if name == "evaluations" else []
    refused = cli("evaluate", str(run.root), "--base", str(base), *data, "--json")
    assert refused.status == 1, refused
    assert f"{name} leads out of the run's folder" in refused.error["message"].replace("/more", "")
    assert str(run.root / name) in refused.error["hint"]
    assert list(elsewhere.iterdir()) == []


def test_what_cannot_be_written_is_named_once(cli: Cli, run: RunDirectory) -> None:
    run.report.mkdir()
    refused = cli("evaluate", str(run.root), "--pulled", "--json")
    assert refused.status == 1
    assert refused.error["message"] == f"evaluate: {run.report}: Is a directory"
    assert "the same command again" in refused.error["hint"]
    assert refused.stderr.count("Is a directory") == 1 and "Traceback" not in refused.stderr


def test_a_label_that_it_does_not_know_is_told_of_ones_own_file(
    cli: Cli, run: RunDirectory, base: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.csv"
    own.write_text("text,label\n好,\x1b[31mgreat\n")
    refused = cli("evaluate", str(run.root), "--base", str(base), "--data", str(own), "--json")
    assert (refused.status, refused.error["code"]) == (1, "data_invalid")
    assert refused.error["message"].startswith(f"{own}: the model does not know the label")
    assert "\x1b" not in refused.stderr and refused.stderr.count("does not know") == 1


def test_another_base_is_told(run: RunDirectory, base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    asked = submission.load(run.spec)
    assert any("not the file that was trained on" in note for note in at_home(run, asked, Asked(), base=other).notes)
    assert not any("trained on" in note for note in at_home(run, asked, Asked(), base=base).notes)


def test_the_figures_from_the_pulled_logits_are_the_hosts_to_the_byte(cli: Cli, run: RunDirectory) -> None:
    done = cli("evaluate", str(run.root), "--pulled", "--json")
    assert done.status == 0, done
    assert run.home_metrics.read_bytes() == run.metrics.read_bytes()
    assert done.data["metrics"] == json.loads(run.metrics.read_bytes())
