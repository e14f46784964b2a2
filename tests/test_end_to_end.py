"""The real command line through real servers: submit, lose the laptop, follow, pull, verify, evaluate."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from transformers import pipeline

from jobs import manifest
from jobs.run_directory import RunDirectory
from remote.embedded import EmbeddedHost
from tests.conftest import REPOSITORY, Cli
from tests.connected import PYTHON_FOLDER
from tests.images import broken_torch
from tests.servers import OpenSshServer
from tests.toy import BASE, write_task

# Nothing of ours may be needed to use what came home: this runs where `jobs` can't be imported.
PLAIN = """
import json, sys, torch
sys.modules["jobs"] = None
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
base, adapter, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.inference_mode():
    batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    print(json.dumps(model(**batch).logits.tolist()))
"""


def save_host(cli: Cli, server: OpenSshServer | EmbeddedHost, workspace: Path) -> None:
    met = cli("host", "add", "box", server.login_line, "--workspace", str(workspace),
              "--known-hosts", str(cli.home / "known_hosts"), "--accept-new", "--json")  # fmt: skip
    assert met.status == 0, met
    assert met.data["workspace"] == f"{workspace}/launch"


@pytest.mark.ssh
def test_the_whole_way_over_openssh_with_the_laptop_killed(cli: Cli, sshd: OpenSshServer, tmp_path: Path) -> None:
    spec = write_task(cli.home / "task", robustness="auto", threshold_goal="recall>=0.9", long_texts="head_tail")
    save_host(cli, sshd, tmp_path / "workspace")
    # The laptop dies while it watches; the run must not notice.
    with cli.start("train", str(spec), "--host", "box", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as watching:
        assert watching.stderr is not None
        assert any("launch: running" in line for line in watching.stderr)
        watching.send_signal(signal.SIGKILL)

    [row] = cli("ps", "--json").data["runs"]
    assert row["state"] in ("running", "verifying", "evaluating", "succeeded")
    followed = cli("logs", "-f")
    assert followed.status == 0, followed
    assert "data: train 200, validation 80, test 80 rows" in followed.stdout
    assert "reproduced on host" in followed.stdout
    assert "succeeded" in followed.stdout
    waited = cli("wait", "--json")
    assert (waited.status, waited.data["state"]) == (0, "succeeded")
    [there] = cli("ps", "--host", "box", "--json").data["runs"]
    assert (there["run_id"], there["state"]) == (row["run_id"], "succeeded")

    pulled = cli("pull", "--json")
    assert pulled.status == 0, pulled
    folder = Path(pulled.data["folder"])
    assert folder == cli.home / "runs" / row["run_id"]
    assert cli("pull", "--json").data["already_here"] is True

    verified = cli("verify", "--json")
    assert verified.status == 0, verified
    assert (verified.data["ok"], verified.data["level"]) == (True, "reproduced here")

    evaluated = cli("evaluate", "--json")
    assert evaluated.status == 0, evaluated
    metrics = evaluated.data["metrics"]
    assert metrics["source"] == "inferred here"
    assert {model["key"] for model in metrics["models"]} == {"majority", "frozen_head", "tfidf", "lora"}
    [lora] = [model["metrics"] for model in metrics["models"] if model["key"] == "lora"]
    assert lora["accuracy"] > 0.8
    assert lora["scaled"]["nll"] > 0 and metrics["temperature"]["rows"] == 80
    assert metrics["decision"]["goal"] == "recall>=0.9" and metrics["decision"]["test"]["recall"] > 0.7
    assert metrics["robustness"]["cases"] > 1000
    pulled_metrics = json.loads((folder / "artifacts" / "metrics.json").read_text("utf-8"))
    assert pulled_metrics["source"] == "inferred on host"
    assert pulled_metrics["robustness"]["models"][-1]["score"] == metrics["robustness"]["models"][-1]["score"]
    assert "verified" in (folder / "report.html").read_text("utf-8")

    # The same rows as another file, of another format and encoding, with columns that do not matter.
    with (cli.home / "task" / "test.csv").open(encoding="utf-8", newline="") as file:
        table = [[row["label"], "x", row["text"]] for row in csv.DictReader(file)]
    with (cli.home / "more.tsv").open("w", encoding="gbk", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["label", "id", "text"], *table])
    again = cli("evaluate", "--data", str(cli.home / "more.tsv"), "--json")
    assert again.status == 0, again
    [same] = [model["metrics"] for model in again.data["metrics"]["models"] if model["key"] == "lora"]
    assert same["accuracy"] == lora["accuracy"]
    assert "more.tsv" in (folder / "evaluations" / "more" / "report.html").read_text("utf-8")

    # Another host may do the work: the adapter and the texts go there, without labels, and nothing of it stays.
    refused = cli("evaluate", "--rerun", "--on", "box", "--json")  # nobody answers
    assert refused.status != 0 and "texts, without labels, and the adapter go to box: at most" in refused.stderr
    there = cli("evaluate", "--rerun", "--on", "box", "--limit", "40", "-y", "--json")
    assert there.status == 0, there
    assert (there.data["metrics"]["source"], there.data["metrics"]["rows"]) == ("inferred on host", 40)
    assert there.data["report"].endswith("evaluations/test-limit-40/report.html")
    assert any(note.startswith("largest difference from the host's logits: 0") for note in there.data["notes"])
    assert [one["run_id"] for one in cli("ps", "--host", "box", "-a", "--json").data["runs"]] == [row["run_id"]]

    # Ours alone are the numbers of plain transformers and peft, too.
    rows = parquet.read_table(folder / "predictions.parquet").to_pylist()[:16]
    texts = json.dumps([row["text"] for row in rows])
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(BASE), str(folder / "artifacts" / "adapter"), texts],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for plain, row in zip(json.loads(done.stdout.splitlines()[-1]), rows, strict=True):
        assert plain == pytest.approx([row["logit_lora_negative"], row["logit_lora_positive"]], abs=1e-4)

    # A byte that changes at home is noticed, by name, and a second pull heals it.
    weights = folder / "artifacts" / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    broken = cli("verify", "--static", "--json")
    assert (broken.status, broken.error["code"]) == (7, "verification_failed")
    assert "adapter_model.safetensors" in broken.error["message"]
    assert cli("pull", "--json").data["already_here"] is False
    assert cli("verify", "--static", "--json").status in (0, 7)
    assert (folder / "report.html").is_file()  # what was made at home stays


@pytest.mark.ssh
def test_detached_then_stopped(cli: Cli, sshd: OpenSshServer, tmp_path: Path) -> None:
    spec = write_task(cli.home / "task", num_train_epochs=500)
    save_host(cli, sshd, tmp_path / "workspace")
    started = cli("train", str(spec), "--host", "box", "-d", "--json")
    assert started.status == 0, started
    run_id = started.data["run_id"]
    unfinished = cli("pull", run_id, "--json")
    assert (unfinished.status, unfinished.error["code"]) == (8, "run_not_finished")
    stopped = cli("stop", run_id, "--json")
    assert stopped.data["state"] == "stopped"
    waited = cli("wait", run_id, "--json")
    assert (waited.status, waited.error["code"]) == (6, "run_failed")
    pulled = cli("pull", run_id, "--json")
    assert pulled.data["state"] == "stopped"
    assert not (Path(pulled.data["folder"]) / "artifacts").exists()
    left = subprocess.run(["pgrep", "-f", f"runs/{run_id}"], capture_output=True, text=True, check=False).stdout.split()
    assert left == []


def test_ctrl_c_detaches_and_the_run_goes_on(cli: Cli, embedded: EmbeddedHost, tmp_path: Path) -> None:
    spec = write_task(cli.home / "task", num_train_epochs=500)
    save_host(cli, embedded, tmp_path / "workspace")
    # What the log says goes to stdout, what `launch` says about it to stderr.
    with cli.start("train", str(spec), "--host", "box", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as watching:
        assert watching.stderr is not None
        assert any("launch: preparing" in line for line in watching.stderr)
        watching.send_signal(signal.SIGINT)
        said = watching.stderr.read()
    assert watching.returncode == 130
    assert "the run goes on: launch logs toy-" in said
    [row] = cli("ps", "--json").data["runs"]
    assert row["state"] in ("preparing", "running")
    assert cli("stop", row["run_id"], "--json").data["state"] == "stopped"


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, Path]:
    """A laptop that trained on itself, and the folder that it pulled."""
    cli = Cli(tmp_path_factory.mktemp("laptop"))
    spec = write_task(cli.home / "task", name="local-toy", train=120, held_out=40)
    trained = cli("train", str(spec), "--host", "local", "--json")
    assert trained.status == 0, trained
    return cli, Path(cli("pull", "local-toy", "--json").data["folder"])


@pytest.mark.slow
def test_the_same_run_without_ssh(local_run: tuple[Cli, Path], tmp_path: Path) -> None:
    cli, folder = local_run
    assert cli("pull", "local-toy", "--json").data["state"] == "succeeded"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    # A folder is as good as a run's name, and without the base every figure comes from the pulled logits.
    (tmp_path / "base-gone").mkdir()
    foreign = Cli(tmp_path / "base-gone")
    evaluated = foreign("evaluate", str(elsewhere), "--json")
    assert evaluated.status == 0, evaluated
    assert evaluated.data["metrics"]["source"] == "inferred on host"
    assert "every figure is recomputed from the logits that its host sent" in evaluated.stderr
    there = (folder / "artifacts" / "metrics.json").read_bytes()
    assert (elsewhere / "metrics.json").read_bytes() == there
    again = cli("evaluate", str(folder), "--pulled", "--json")  # where the base is at hand, too
    assert again.status == 0 and (folder / "metrics.json").read_bytes() == there
    with Path(evaluated.data["errors"]).open(encoding="utf-8-sig", newline="") as file:
        wrong = list(csv.DictReader(file))
    [lora] = [model["metrics"] for model in evaluated.data["metrics"]["models"] if model["key"] == "lora"]
    assert len(wrong) == round((1 - lora["accuracy"]) * evaluated.data["metrics"]["rows"])
    twins = [json.loads(line) for line in (folder / "artifacts" / "overlap.jsonl").read_text("utf-8").splitlines()]
    assert {int(row["row"]) for row in wrong if row["near_duplicate"]} <= {twin["row"] for twin in twins}
    assert twins  # of so few words many rows are the same
    compared = foreign("compare", str(folder), str(elsewhere), "--json")
    assert compared.status == 0, compared
    assert [run["run"] for run in compared.data["runs"]] == [folder.name, "elsewhere"]
    assert compared.data["comparisons"][0]["wins"] == compared.data["comparisons"][0]["losses"] == 0
    verified = foreign("verify", str(elsewhere), "--json")
    assert verified.data["level"] == "reproduced on host"
    [provenance] = [check for check in verified.data["checks"] if check["id"] == "provenance"]
    assert provenance["detail"] == "spec, data, code and base are as submitted"
    here = foreign("verify", str(elsewhere), "--base", str(BASE), "--json")
    assert here.data["level"] == "reproduced here"
    merged_whole_or_not_at_all(foreign, elsewhere, tmp_path / "model")
    # Which versions it was trained with is a host's word: it does not choose what is installed here.
    figures = elsewhere / "artifacts" / "training.json"
    libraries = {"transformers": "5.23.0 --index-url http://127.0.0.1:9", "peft": "0.1.0", "torch": "1.0"}
    figures.write_text(json.dumps(json.loads(figures.read_text()) | {"libraries": libraries}))
    changed = foreign("evaluate", str(elsewhere), "--json")
    assert (changed.status, changed.error["code"]) == (7, "verification_failed")
    assert "manifest: training.json" in changed.error["message"]
    (elsewhere / "manifest.json").write_text(manifest.dump(manifest.list_files(elsewhere / "artifacts")))
    says = json.loads((elsewhere / "result.json").read_text())
    says["manifest_sha256"] = manifest.sha256_of(elsewhere / "manifest.json")
    (elsewhere / "result.json").write_text(json.dumps(says))
    warned = foreign("evaluate", str(elsewhere))
    assert warned.status == 0, warned
    assert (warned.stdout + warned.stderr).count("is not taken over here") == 2
    assert "trained with torch 1.0, here is " in warned.stdout + warned.stderr
    shutil.rmtree(elsewhere / "artifacts" / "probes")
    refused = foreign("merge", str(elsewhere), "--base", str(BASE), "--to", str(tmp_path / "never"))
    assert refused.status == 7 and "do not use this adapter" in refused.stderr
    assert not any(tmp_path.glob("*never*"))


def merged_whole_or_not_at_all(cli: Cli, run: Path, target: Path) -> None:
    """Beside what a merge that was killed has left, which goes, and what another one is making, which stays."""
    dead, alive = (target.with_name(f".model.{name}.merging") for name in ("dead", "alive"))
    for folder in (dead, alive):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.safetensors").write_bytes(b"half of")
        (folder / "owner").touch()
    with (alive / "owner").open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        merged = cli("merge", str(run), "--base", str(BASE), "--to", str(target), "--json")
    assert merged.status == 0, merged
    assert f"has left: {dead}" in merged.stderr and str(alive) not in merged.stderr
    assert sorted(target.parent.glob(".model.*")) == [alive]
    assert (merged.data["folder"], merged.data["dtype"]) == (str(target), "float32")
    assert merged.data["tolerances"] < 1e-3
    classify = pipeline("text-classification", model=str(target))
    assert [one["label"] for one in classify(["房间很好。", "早餐太糟糕了。"])] == ["positive", "negative"]


@pytest.mark.slow
@pytest.mark.parametrize("another", [True, False], ids=["another", "none"])
def test_a_broken_torch_of_ones_own_does_not_matter(local_run: tuple[Cli, Path], tmp_path: Path, another: bool) -> None:
    """With another Python on this machine that has everything, and where one has to be made."""
    cli, folder = local_run
    caller = Cli(cli.home, python=str(broken_torch(tmp_path / "own")))
    caller.env["PYTHONPATH"] = str(REPOSITORY)
    caller.env["LAUNCH_HOME"] = cli.env["LAUNCH_HOME"]
    bare = os.path.dirname(os.path.realpath(sys.executable))
    caller.env["PATH"] = os.pathsep.join([PYTHON_FOLDER if another else bare, "/usr/bin", "/bin"])
    assert (
        "undefined symbol"
        in subprocess.run([caller.python, "-c", "import torch"], check=False, capture_output=True, text=True).stderr
    )
    evaluated = caller("evaluate", str(folder))
    assert evaluated.status == 0, evaluated
    assert "libc10.so" in evaluated.stdout + evaluated.stderr  # why its own is not taken
    assert ("building" in evaluated.stdout + evaluated.stderr) is not another
    verified = caller("verify", str(folder), "--json")
    assert (verified.status, verified.data["level"]) == (0, "reproduced here"), verified


def test_two_hosts_files_are_the_protocols(cli: Cli) -> None:
    """The names that the host's side knows by itself are the ones the laptop's side uses."""
    from jobs.run_directory import RunDirectory
    from remote.onhost import run as onhost_run

    root = Path("/w/runs/a-aaaaaaaa")
    assert onhost_run.Run("/w", "a-aaaaaaaa").root == str(RunDirectory(root).root)
    from jobs import run_directory

    assert onhost_run.RUN_ID.pattern == run_directory.RUN_ID.pattern
    assert onhost_run.PROTOCOL == run_directory.PROTOCOL


@pytest.mark.alone
@pytest.mark.slow
def test_the_demo_is_as_good_as_promised(cli: Cli) -> None:
    """Of the demo that the gate has just shown, where it says which and how long it took: it takes minutes."""
    folder, seconds = os.environ.get("DEMO_RUN"), float(os.environ.get("DEMO_S", 0))
    if not folder:
        started = time.monotonic()
        done = cli("demo", "--json", env={"OMP_NUM_THREADS": str(os.cpu_count())})
        assert done.status == 0, done
        folder, seconds = str(Path(done.data["report"]).parent), time.monotonic() - started
    run = RunDirectory(REPOSITORY / folder)
    document = json.loads(run.home_metrics.read_text("utf-8"))
    figures = {model["key"]: model["metrics"] for model in document["models"]}
    assert figures["lora"]["accuracy"] >= 0.82
    assert figures["lora"]["auc_roc"] >= 0.90
    assert figures["lora"]["accuracy"] > figures["majority"]["accuracy"]
    scaled = figures["lora"]["scaled"]
    assert scaled["ece"] <= scaled["floor"]["p95"] and scaled["floor"]["simulations"] == 2000
    assert scaled["ece"] < figures["lora"]["raw"]["ece"]
    [frozen] = [one for one in document["comparisons"] if one["against"] == "frozen_head"]
    assert frozen["verdict"] == "better" and frozen["mcnemar_p"] < 0.01
    robustness = {model["key"]: model for model in document["robustness"]["models"]}
    low, high = robustness["lora"]["interval"]
    assert document["robustness"]["cases"] >= 1000
    assert robustness["majority"]["interval"][1] < low < robustness["lora"]["score"] < high
    assert run.report.is_file()
    assert seconds < 360
