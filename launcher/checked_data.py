"""The data of a spec and what is wrong with it: the check before anything is sent or paid for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs import data_check, data_finding, suite_labels
from jobs.data_check import Report
from jobs.data_finding import ERROR, NOTE, Finding
from jobs.label import in_order
from jobs.spec import NO_GOAL, Spec
from jobs.table import listed
from launcher import dataset, text_lengths
from launcher.data_table import in_a_line
from launcher.dataset import Dataset
from launcher.errors import LaunchError
from launcher.progress import Note, Observer


class UnfitData(LaunchError):
    """The data is not worth training on; nothing was sent."""

    code = "data_unfit"


@dataclass(frozen=True)
class CheckedData:
    """What was read, and the report on it."""

    dataset: Dataset
    report: Report

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        origin = self.dataset.origin
        return {**self.report.to_json(), "split": origin.split, "commit": origin.commit}


def look(spec: Spec, folder: Path, base: Path | None) -> CheckedData:
    """Read the data and check it; lengths are counted with the tokenizer in the folder `base`, or in the Hub's cache.

    Raises DataError where it can't be read.
    """
    found = dataset.read(spec, folder)
    lengths = text_lengths.measure(found.tables["train"].texts, spec, base)
    report = data_check.look(found.tables, lengths, found.encodings)
    report = replace(report, findings=(*_unfit(spec, found.tables["train"].labels), *report.findings))
    if found.unused:
        what = f"not used of {spec.data.dataset or spec.data.file}: {', '.join(found.unused)}"
        note = Finding("unused_split", NOTE, what, "splits are train, validation and test", len(found.unused))
        report = replace(report, findings=(*report.findings, note))
    return CheckedData(found, report)


def _unfit(spec: Spec, labels: Sequence[str]) -> Iterator[Finding]:
    """What the spec asks for and these labels can't give: the host would say so, on paid time."""
    names = in_order(labels)
    if spec.threshold_goal != NO_GOAL and len(names) != 2:
        what = f"threshold_goal {spec.threshold_goal}: there are {len(names)} labels, not two"
        yield Finding("labels_unfit", ERROR, what, "threshold_goal: none", len(labels))
    if spec.robustness == "yes" and suite_labels.answers(names, names[-1] if names else "") is None:
        what = f"robustness: which of the labels {listed(names)} means a good review is not known"
        yield Finding("labels_unfit", ERROR, what, "robustness: no", len(labels))


def require(findings: Sequence[Finding], observer: Observer, *, force: bool = False) -> None:
    """Tell the warnings.  Raises UnfitData where there is an error, with `force` only where no training could go on."""
    stopping = data_finding.stopping(findings, force=force)
    for finding in findings:
        if finding.severity != NOTE and finding not in stopping:
            observer(Note(in_a_line(finding)))
    if stopping:
        listed = "".join(f"\n  - {one.what}" for one in stopping)
        goes_on = not data_finding.stopping(findings, force=True)
        hint = f"{stopping[0].todo}; launch check SPEC shows rows" + ("; --force goes on" if goes_on else "")
        raise UnfitData(f"the data is not fit to train on, nothing was sent{listed}", hint=hint)
