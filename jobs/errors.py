"""The one family of errors that `jobs` raises."""

from __future__ import annotations


class JobError(Exception):
    """What failed and on what; `hint` is the next thing to type, `code` a stable word for scripts."""

    code = "job_failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(JobError):
    """The spec asks for something that can't be: every problem at once, in `problems`."""

    code = "spec_invalid"

    def __init__(self, origin: str, problems: list[str], *, hint: str = "") -> None:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{origin}: {len(problems)} problem{'s' * (len(problems) != 1)}\n{listed}", hint=hint)
        self.problems = problems


class DataError(JobError):
    """A data file can't be read as texts with labels."""

    code = "data_invalid"


class NoData(JobError):
    """A metric was asked for zero rows; there is no honest number to return."""

    code = "no_data"


class AdapterRejected(JobError):
    """An adapter failed a required check."""

    code = "adapter_rejected"


class BrokenRun(JobError):
    """A run directory, manifest or artifact is not what the protocol says."""

    code = "run_broken"
