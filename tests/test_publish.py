"""Publishing to a Hub: what goes up and what never does, who is asked, and what every failure leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import make_base, make_run, toy_rows

from jobs import adapter, atomic, base_model, evaluation, manifest, training
from jobs.__main__ import main as jobs_main
from jobs.run_directory import RunDirectory
from jobs.submission import load as load_submission
from launcher import publish
from launcher.errors import LaunchError
from launcher.home_jobs import HomeRun
from launcher.hub_repository import HubRepository, check_name
from launcher.progress import ignore
from launcher.publish import Publication
from tests.conftest import Cli, Ended
from tests.hub_server import COMMIT, Hub, serve

TOKEN = "hf_SecretSecretSecret"
REPO = "me/reviews"
PROMPT = "评：{text}。"
CARD = "README.md"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of a base of the Hub as it is after its end: trained, verified and evaluated on its host."""
    run = make_run(
        tmp_path_factory.mktemp("runs"), base, rows=120, model_name_or_path="org/tiny", prompt_template=PROMPT
    )
    files = {"model.safetensors": {"size_bytes": (base / "model.safetensors").stat().st_size, "sha256": "0" * 64}}
    atomic.write_json(run.base, {"folder": str(base), "revision": COMMIT, "files": files})
    training.train(run.root)
    assert jobs_main(["finish", str(run.root)]) == 0
    return run


@pytest.fixture
def run(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(trained.root, tmp_path / trained.run_id)))


@pytest.fixture
def hub(base: Path, tmp_path: Path) -> Iterator[Hub]:
    with serve({"org/tiny": base}) as hub:
        hub.home, hub.token = tmp_path / "hub", TOKEN
        yield hub


def call(cli: Cli, hub: Hub, *argv: str, **env: str) -> Ended:
    """`launch publish` as somebody who is logged in to that Hub, and who left no trace of the token."""
    login = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(cli.home / "hf")}
    ended = cli("publish", *argv, env=login | env)
    assert TOKEN not in ended.stdout + ended.stderr
    return ended


def gathered(run: RunDirectory, base: Path | None = None, repository: str = REPO) -> Publication:
    home = HomeRun(run, load_submission(run.spec), base, {})
    return publish.gather(home, repository, run.root.parent, ignore)


def texts_of(run: RunDirectory) -> list[str]:
    lines = [line for path in run.inputs.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    return [json.loads(line)["text"] for line in lines]


def escaped(text: str) -> bytes:
    """As JSON has it."""
    return json.dumps(text)[1:-1].encode()


def program_in(card: str) -> str:
    found = re.search(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_a_published_adapter_answers_as_ours_does_with_nothing_of_ours(
    cli: Cli, hub: Hub, run: RunDirectory, base: Path, tmp_path: Path
) -> None:
    published = call(cli, hub, str(run.root), REPO, "-y", "--json")
    assert published.status == 0, published
    assert (published.data["public"], published.data["level"]) == (False, "reproduced on host")
    assert published.data["url"] == f"{hub.endpoint}/{REPO}"
    assert hub.private == {REPO}
    there = hub.repositories[REPO]
    names = {path.name for path in there.iterdir()}
    assert {"README.md", "verification.json", "adapter_model.safetensors", "tokenizer.json"} < names
    assert names == {file["path"] for file in published.data["files"]}
    assert sum(request.endswith("/commit/main") for request in hub.requests) == 1
    listed = {entry.path: entry.sha256 for entry in manifest.parse(run.manifest.read_text("utf-8"))}
    for name in names - {CARD, "verification.json"}:
        assert hashlib.sha256((there / name).read_bytes()).hexdigest() == listed[f"adapter/{name}"]
    assert json.loads((there / "verification.json").read_bytes())["ok"] is True

    assert not names & {"probes.json", "predictions.csv", "training.json", "metrics.json", "spec.json"}
    came = b"\n".join([*hub.received, *(path.read_bytes() for path in there.iterdir())])
    assert "评：".encode() in came  # the prompt, of the card: what came is really looked at
    telling = [text for text in texts_of(run) if len(text) > 3]
    assert len(telling) > 50 and not [text for text in telling if text.encode() in came or escaped(text) in came]

    long, blank = "好" * 60, " \u200b"
    texts = ["房间好", "慢", long, blank, "店 差 坏 ", texts_of(run)[0]]
    program = program_in((there / CARD).read_text("utf-8"))
    ask = f"import json\nprint(json.dumps([logits({texts!r}).tolist(), classify({texts!r}), logits([' ']).tolist()]))"
    env = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "fresh"),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys\nsys.modules['jobs'] = None\n{program}\n{ask}"],
        env=os.environ | env | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logits, answers, empty = json.loads(done.stdout.splitlines()[-1])
    ours = evaluation.infer(run, base, texts, evaluation.read_trained(run), 4096)
    for found, expected in zip(logits, ours.tolist(), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    assert [label for label, _ in answers] == [("bad", "good")[int(row.argmax())] for row in ours]
    assert empty[0] == pytest.approx(ours[texts.index(blank)].tolist())
