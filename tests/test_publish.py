"""Publishing to a Hub: what goes up and what never does, who is asked, and what every failure leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_base, make_run, toy_rows

from jobs import answers, atomic, manifest, run_checks, training
from jobs.__main__ import main as jobs_main
from jobs.classifier import Classifier
from jobs.errors import AdapterRejected
from jobs.run_directory import RunDirectory
from jobs.submission import load as load_submission
from launcher import publish
from launcher.errors import LaunchError, VerificationFailed
from launcher.home_jobs import HomeRun
from launcher.hub_repository import HubRepository, check_name
from launcher.progress import ignore
from launcher.publish import Publication, Published
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
    weights = base / "model.safetensors"
    files = {weights.name: {"size_bytes": weights.stat().st_size, "sha256": manifest.sha256_of(weights)}}
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
    cli.env.pop("HF_HUB_DISABLE_XET", None)  # not everybody has set it
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


def vouch(run: RunDirectory) -> None:
    """All that is told of what lies there made to agree, as a hostile host would do it."""
    if (run.adapter / "classifier.json").exists():
        told = json.loads((run.adapter / "classifier.json").read_bytes())
        change(run.probe_texts, **{key: told[key] for key in run_checks.USED_WITH})
        change(run.training, label_names=list(told["id2label"].values()))
    change(run.training, adapter_files={one.path: one.sha256 for one in manifest.list_files(run.adapter)})
    run.manifest.write_text(manifest.dump(manifest.list_files(run.artifacts)))
    result = json.loads(run.result.read_bytes())
    run.result.write_text(json.dumps(result | {"manifest_sha256": manifest.sha256_of(run.manifest)}))


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | keys))


def send(publication: Publication, hub: Hub, *, public: bool = False) -> Published:
    """As the command does it, without asking."""
    repository = HubRepository(publication.repository, TOKEN, hub.endpoint)
    standing = repository.look()
    publish.require_fit(publication, standing, public=public)
    return publish.send(publication, repository, standing, public=public)


def written(hub: Hub) -> list[str]:
    """The requests that change something there."""
    return [one for one in hub.requests if one.startswith(("POST", "PUT")) and "validate-yaml" not in one]


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
    assert not [request for request in hub.requests if "xet" in request]
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
    env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "fresh")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys\nsys.modules['jobs'] = None\n{program}\n{ask}"],
        env=os.environ | env | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logits, said, empty = json.loads(done.stdout.splitlines()[-1])
    ours = Classifier.open(base, run.adapter, label_names=("bad", "good")).logits(texts)
    for found, expected in zip(logits, ours.tolist(), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    assert [label for label, _ in said] == [("bad", "good")[int(row.argmax())] for row in ours]
    assert empty[0] == pytest.approx(ours[texts.index(blank)].tolist())
    as_predicted = [one.confidence for one in answers.Rule.of_run(run).read(ours)]
    assert [confidence for _, confidence in said] == pytest.approx(as_predicted, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("long_texts", "prompt"), [("head_tail", "{text}"), ("windows", PROMPT)])
def test_long_texts_are_read_as_ours_are(base: Path, tmp_path: Path, long_texts: str, prompt: str) -> None:
    texts = ["好" * 60 + "坏差慢", "慢", "的房" * 500 + "差", "\u200b", "".join(text for text, _ in toy_rows(40, 3))]
    run = make_run(tmp_path, base, rows=120, long_texts=long_texts, prompt_template=prompt, threshold_goal="f1")
    training.train(run.root)
    assert jobs_main(["finish", str(run.root)]) == 0
    card = gathered(run, base).card
    program = program_in(card).replace("path/to/tiny", str(base)).replace(repr(REPO), repr(str(run.adapter)))
    ask = f"import json\nprint(json.dumps([logits({texts!r}).tolist(), classify({texts!r})]))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys\nsys.modules['jobs'] = None\n{program}\n{ask}"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logits, said = json.loads(done.stdout.splitlines()[-1])
    ours = Classifier.open(base, run.adapter, label_names=("bad", "good")).logits(texts)
    for found, expected in zip(logits, ours.tolist(), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    for found, expected in zip(said, answers.Rule.of_run(run).read(ours), strict=True):
        assert found == [expected.label, pytest.approx(expected.confidence, abs=1e-4), expected.decision]


@pytest.mark.slow
def test_with_the_base_at_hand_it_is_reproduced_first(run: RunDirectory, base: Path) -> None:
    publication = gathered(run, base)
    assert publication.level == "reproduced here"
    assert "got the logits of the trained model again" in publication.card
    assert str(base) not in publication.card + publication.files["verification.json"].decode()


def test_looking_first_contacts_nobody(cli: Cli, hub: Hub, run: RunDirectory) -> None:
    shown = call(cli, hub, str(run.root), REPO, "--dry-run", HF_TOKEN="")
    assert shown.status == 0, shown
    assert "library_name: peft" in shown.stdout and "adapter_model.safetensors" in shown.stdout
    assert hub.requests == []


def test_what_fails_verification_never_meets_the_hub(cli: Cli, hub: Hub, run: RunDirectory) -> None:
    weights = run.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    refused = call(cli, hub, str(run.root), REPO, "-y", "--json")
    assert (refused.status, refused.error["code"]) == (7, "verification_failed")
    assert "adapter_model.safetensors" in refused.error["message"]
    assert hub.requests == []


def test_nobody_there_to_agree(cli: Cli, hub: Hub, run: RunDirectory) -> None:
    asked = call(cli, hub, str(run.root), REPO)
    assert asked.status == 2
    assert "toy-" in asked.stderr and f"to {REPO}, which is made for it, private" in asked.stderr + asked.stdout
    assert written(hub) == []


def test_a_public_repository_takes_nothing_unless_asked_to(cli: Cli, hub: Hub, run: RunDirectory) -> None:
    there = hub.repositories[REPO] = run.root.parent / "public"
    there.mkdir()
    refused = call(cli, hub, str(run.root), REPO, "-y", "--json")
    assert refused.status == 1
    assert "is public" in refused.error["message"] and "--public" in refused.error["hint"]
    assert written(hub) == [] and list(there.iterdir()) == []
    assert send(gathered(run), hub, public=True).is_public


def test_public_where_it_was_asked_for(hub: Hub, run: RunDirectory) -> None:
    assert send(gathered(run), hub, public=True).is_public
    assert hub.private == set()


def test_one_that_turns_out_public_gets_nothing(hub: Hub, run: RunDirectory) -> None:
    hub.makes_public = True
    with pytest.raises(LaunchError, match="is public") as caught:
        send(gathered(run), hub)
    assert f"{REPO} was made, and nothing was put into it" in caught.value.message
    assert list(hub.repositories[REPO].iterdir()) == []


def test_a_private_one_stays_private(hub: Hub, run: RunDirectory) -> None:
    first = send(gathered(run), hub)
    standing = HubRepository(REPO, TOKEN, hub.endpoint).look()
    assert "and stays so" in first.publication.plan(standing, public=True)
    assert not send(gathered(run), hub, public=True).is_public


def test_what_is_there_already_is_not_sent_twice(hub: Hub, run: RunDirectory) -> None:
    first = send(gathered(run), hub)
    hub.forget()
    again = send(gathered(run), hub)
    assert not [one for one in written(hub) if "preupload" not in one and "batch" not in one]
    assert again.commit_url == first.commit_url


def test_files_of_something_else_are_not_mixed_with_ours(hub: Hub, run: RunDirectory) -> None:
    send(gathered(run), hub)
    (hub.repositories[REPO] / "LICENSE").write_text("MIT")
    send(gathered(run), hub)
    (hub.repositories[REPO] / "config.json").write_text("{}")
    with pytest.raises(LaunchError, match="files of something else: config.json"):
        send(gathered(run), hub)


def test_what_was_verified_is_sent_whatever_happens_to_the_folder(hub: Hub, run: RunDirectory) -> None:
    publication = gathered(run)
    weights = run.adapter / "adapter_model.safetensors"
    verified = weights.read_bytes()
    weights.write_bytes(b"another")
    send(publication, hub)
    assert (hub.repositories[REPO] / weights.name).read_bytes() == verified


def test_what_else_lies_in_the_folder_stays(run: RunDirectory) -> None:
    names = set(gathered(run).files)
    for name in ("evil.pkl", "modeling.py", "README.md", "rows.txt", "tokenizer.py"):
        (run.adapter / name).write_bytes(b"x")
    vouch(run)
    assert set(gathered(run).files) == names
    assert gathered(run).card.startswith("---\nbase_model: org/tiny\n")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (lambda run: change(run.host_verification, level="static"), VerificationFailed),
        (lambda run: (run.adapter / "classifier.json").unlink(), VerificationFailed),
        (lambda run: change(run.adapter / "adapter_config.json", base_model_name_or_path="evil/base"), AdapterRejected),
        (lambda run: change(run.adapter / "tokenizer_config.json", auto_map={"A": "evil/x--y.Z"}), AdapterRejected),
        (
            lambda run: change(run.adapter / "adapter_config.json", auto_mapping={"parent_library": "x"}),
            AdapterRejected,
        ),
        (lambda run: change(run.adapter / "classifier.json", pad_token_id="0; import os"), AdapterRejected),
        (lambda run: change(run.adapter / "classifier.json", padding_side="up"), AdapterRejected),
        (lambda run: change(run.adapter / "classifier.json", id2label={"0": "a", "2": "b"}), VerificationFailed),
        (lambda run: change(run.adapter / "classifier.json", id2label={"0": 1, "1": 2}), AdapterRejected),
        (lambda run: change(run.adapter / "classifier.json", prompt_template="{text}{text}"), VerificationFailed),
    ],
    ids=["static", "no classifier", "other base", "code", "import", "pad", "side", "gap", "no words", "template"],
)
def test_a_run_that_vouches_for_nonsense_is_refused(
    run: RunDirectory, harm: Callable[[RunDirectory], Any], error: type[Exception]
) -> None:
    harm(run)
    vouch(run)
    with pytest.raises(error) as caught:
        gathered(run)
    assert getattr(caught.value, "hint", "")


def test_the_base_s_commit_is_the_one_that_was_asked_for(run: RunDirectory) -> None:
    """adapter_config.json sends plain PEFT to a commit, and is a host's word."""
    asked = load_submission(run.spec)
    pinned = replace(asked, spec=replace(asked.spec, model_revision=COMMIT))
    made_of = json.loads(run.training.read_bytes())["provenance"]
    change(run.training, provenance=made_of | {"submission": pinned.to_json()})
    vouch(run)
    home = HomeRun(run, pinned, None, {})
    assert f"REVISION = '{COMMIT}'" in publish.gather(home, REPO, run.root.parent, ignore).card
    change(run.adapter / "adapter_config.json", revision="f" * 40)
    vouch(run)
    with pytest.raises(AdapterRejected, match="names the base"):
        publish.gather(home, REPO, run.root.parent, ignore)


def test_a_base_that_was_pushed_out_of_the_cache_is_one_of_the_hub(run: RunDirectory) -> None:
    """`--push-model`: the same model, only that it went another way."""
    asked = load_submission(run.spec)
    pushed = replace(asked, base_files=(manifest.Entry("inputs/base/model.safetensors", 9, "e" * 64),))
    made_of = json.loads(run.training.read_bytes())["provenance"]
    made_of["base"]["files"]["model.safetensors"] = "e" * 64
    change(run.training, provenance=made_of | {"submission": pushed.to_json()})
    vouch(run)
    for source, name in (
        (f"hub/models--org--tiny/snapshots/{COMMIT}", f"'org/tiny'\nREVISION = '{COMMIT}'"),
        ("models/org/tiny", "'path/to/tiny'"),
    ):
        home = HomeRun(run, pushed, None, {"base": f"/home/me/{source}"})
        card = publish.gather(home, REPO, run.root.parent, ignore).card
        assert f"BASE = {name}\n" in program_in(card)
        assert "e" * 64 in card and "/home/me" not in card


def test_the_metrics_of_this_machine_come_first(run: RunDirectory) -> None:
    assert "as the training host tells them; nobody" in gathered(run).card
    here = json.loads(run.metrics.read_bytes()) | {"source": "inferred here"}
    here["models"][-1]["metrics"]["accuracy"] = 0.4321
    run.home_metrics.write_text(json.dumps(here))
    card = gathered(run).card
    assert "43.2%" in card and "worked out with these files" in card


@pytest.mark.parametrize(
    ("step", "status", "code", "says"),
    [
        ("create", 401, "authentication_failed", "does not accept this token"),
        ("create", 403, "authentication_failed", "does not let this token make me/reviews"),
        ("create", 402, "error", "there is no me/reviews that this token sees"),
        ("create", 409, "error", "exists"),
        ("create", 429, "error", "fewer requests"),
        ("create", 500, "error", "try again in a minute"),
        ("create", 0, "unreachable", "can't be reached"),
        ("preupload", 403, "authentication_failed", "nothing was put into it"),
        ("batch", 413, "error", "nothing was put into it"),
        ("put", 400, "error", "nothing was put into it"),
        ("commit", 404, "not_found", "nothing was put into it"),
        ("commit", 409, "error", "changed meanwhile"),
        ("commit", 500, "error", "nothing was put into it"),
        ("commit", 0, "unreachable", "nothing was put into it"),
        ("commit", "late", "unreachable", "the commit may have come through"),
    ],
)
def test_what_goes_wrong_on_a_hub_is_said(
    hub: Hub, run: RunDirectory, step: str, status: int | str, code: str, says: str
) -> None:
    hub.refuses[step] = status
    with pytest.raises(LaunchError) as caught:
        send(gathered(run), hub)
    error = caught.value
    assert error.code == code
    assert says in f"{error.message}\n{error.hint}"
    assert "launch publish" in error.hint
    assert TOKEN not in error.message + error.hint
    files = {path.name for path in there.iterdir()} if (there := hub.repositories.get(REPO)) else set()
    assert bool(files) == (status == "late")
    hub.refuses.clear()
    send(gathered(run), hub)
    assert (hub.repositories[REPO] / CARD).is_file()


def test_what_is_no_hub(hub: Hub) -> None:
    hub.is_a_portal = True
    with pytest.raises(LaunchError, match="no answer of a Hub") as caught:
        HubRepository(REPO, TOKEN, hub.endpoint).look()
    assert caught.value.code == "unreachable"
    with pytest.raises(LaunchError, match="can't be reached") as caught:
        HubRepository(REPO, TOKEN, "http://127.0.0.1:9").look()
    assert caught.value.code == "unreachable"


def test_a_token_that_is_no_longer_good(hub: Hub) -> None:
    with pytest.raises(LaunchError, match="does not accept this token"):
        HubRepository(REPO, "hf_old", hub.endpoint).look()


@pytest.mark.parametrize(("token", "says"), [("", "nobody is logged in"), ("hf_é b", "not a token")])
def test_without_a_token_nothing_begins(cli: Cli, hub: Hub, token: str, says: str) -> None:
    refused = call(cli, hub, "none", REPO, "--json", HF_TOKEN=token)
    assert (refused.status, refused.error["code"]) == (3, "authentication_failed")
    assert says in refused.error["message"] and (not token or token not in refused.stderr)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["reviews", "a/b/c", "../x", "me/..", "me/x y", "me/\x1b[31m", "我/x", "me/x.git", "/"]
)
def test_names_that_no_repository_has(name: str) -> None:
    with pytest.raises(LaunchError) as caught:
        check_name(name)
    assert caught.value.code == "usage"
