"""Where the files of a run lie: the protocol between the host and the laptop, and the only place that names its paths.

The same layout stands on the host (`<workspace>/launch/runs/<id>`) and, after a pull, at home (`runs/<id>`).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

PROTOCOL = 2
"""Raised when an older `launch` could misread a run directory; newer than known is refused."""

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,47}-[a-z2-7]{8}\Z")
BASELINES = "baselines.safetensors"
REJECTED = ".rejected"
"""At home, of the folder of an adapter that was not taken for a success: nothing there may be called one later."""


def new_run_id(name: str) -> str:
    """A slug of `name`, a dash, and 8 random base32 characters (40 bits): `reviews-k3x7q2mh`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "run"
    return f"{slug}-{''.join(secrets.choice(_BASE32) for _ in range(8))}"


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run; nothing is touched by asking for one."""

    root: Path

    @property
    def run_id(self) -> str:
        return self.root.name.removesuffix(REJECTED)

    @property
    def rejected(self) -> RunDirectory:
        """Where this run lies at home when its adapter is not to be used."""
        return RunDirectory(self.root.with_name(self.run_id + REJECTED))

    @property
    def is_rejected(self) -> bool:
        return self.root.name.endswith(REJECTED)

    @property
    def spec(self) -> Path:
        """What was asked, frozen at submit."""
        return self.root / "spec.json"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def base(self) -> Path:
        """Where the base model lies on the host, its commit and its files of weights, as they were fetched."""
        return self.root / "base.json"

    @property
    def code(self) -> Path:
        """The `jobs` package as it was on the laptop at submit."""
        return self.root / "code"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def logs(self) -> list[Path]:
        """The files of the log that are there; a long one has several."""
        later = sorted(self.root.glob("log.[0-9]*.txt"))
        return [self.log, *later] if self.log.is_file() else later

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def heartbeat(self) -> Path:
        return self.root / "heartbeat"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """Everything that comes home; exactly what the manifest lists."""
        return self.root / "artifacts"

    @property
    def adapter(self) -> Path:
        """PEFT's folder, with the tokenizer: usable without anything of ours."""
        return self.artifacts / "adapter"

    @property
    def probes(self) -> Path:
        """Probe texts and their logits, as trained and portable."""
        return self.artifacts / "probes"

    @property
    def probe_texts(self) -> Path:
        """Texts of the probes, their tokens, and what the adapter was used with."""
        return self.probes / "probes.json"

    @property
    def baselines(self) -> Path:
        """What the adapter has to beat, on validation and test: worked out before the first step."""
        return self.artifacts / BASELINES

    @property
    def training(self) -> Path:
        """Figures of the training: rows, steps, losses, versions, fingerprint before the first step."""
        return self.artifacts / "training.json"

    @property
    def predictions(self) -> Path:
        """Texts, labels and the logits of every model that was evaluated on the host."""
        return self.artifacts / "predictions.csv"

    @property
    def suite(self) -> Path:
        """The cases of the robustness suite that the run was asked; absent where it does not fit."""
        return self.artifacts / "robustness.jsonl"

    @property
    def suite_logits(self) -> Path:
        """`<model>`: logits (T, C) of the suite's texts."""
        return self.artifacts / "robustness.safetensors"

    @property
    def overlap(self) -> Path:
        """Test rows that are nearly a training row; not of runs of an earlier version."""
        return self.artifacts / "overlap.jsonl"

    @property
    def metrics(self) -> Path:
        return self.artifacts / "metrics.json"

    @property
    def host_verification(self) -> Path:
        """The verdict of the fresh process on the host."""
        return self.artifacts / "verification.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def result(self) -> Path:
        """Final state; written last.  Its presence is the truth."""
        return self.root / "result.json"

    @property
    def crash(self) -> Path:
        """What was measured when the run ended badly; only of such a run."""
        return self.root / "crash.json"

    @property
    def adopted(self) -> Path:
        """Only at home: there where the run was submitted elsewhere, so that even spec.json is its host's word."""
        return self.root / "adopted"

    # Only at home: what this machine found out by itself, kept apart from what the host said.
    @property
    def home_verification(self) -> Path:
        return self.root / "verification.json"

    @property
    def home_predictions(self) -> Path:
        return self.root / "predictions.parquet"

    @property
    def earlier_home_predictions(self) -> Path:
        """Where an earlier version wrote them."""
        return self.root / "predictions.csv"

    @property
    def home_errors(self) -> Path:
        """Every row that the adapter got wrong, for a spreadsheet."""
        return self.root / "errors.csv"

    @property
    def home_metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def plots(self) -> Path:
        """The report's plots as PNG."""
        return self.root / "plots"

    @property
    def inferring(self) -> Path:
        """Answers of an inference that was stopped, to go on from."""
        return self.root / ".inferring.logits"

    @property
    def evaluations(self) -> Path:
        """A folder for each other file that the run was evaluated on, laid out as what is made at home."""
        return self.root / "evaluations"
