"""Check and Verdict: what was looked at in an adapter, what came out, and whether that is enough."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "not_checked"]
Level = Literal["static", "reproduced on host", "reproduced here"]

FAILED_VERIFICATION = "verification: "
"""How the reason begins of a run whose adapter failed; the ids of the checks follow."""

STATIC: Level = "static"
ON_HOST: Level = "reproduced on host"
HERE: Level = "reproduced here"


@dataclass(frozen=True)
class Check:
    """One question put to an adapter.

    `detail` is what was found, with its figures; `meaning` what that does to whoever uses the adapter, and
    `todo` the next step, both empty for a pass.  A `required` check that did not pass, for whatever reason,
    spoils the verdict.  `tolerances` is how far a comparison missed, in what was allowed; None where there is none.
    """

    id: str
    status: Status
    detail: str
    meaning: str = ""
    todo: str = ""
    required: bool = True
    tolerances: float | None = None


@dataclass(frozen=True)
class Verdict:
    """All checks of one verification; `level` is the strongest evidence they rest on."""

    level: Level
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True only when there are required checks and every one of them passed."""
        return not self.unmet and any(check.required for check in self.checks)

    @property
    def unmet(self) -> tuple[Check, ...]:
        """The required checks that did not pass: the reasons why the verdict is not ok."""
        return tuple(check for check in self.checks if check.required and check.status != "pass")

    def to_json(self) -> dict[str, Any]:
        """`{"ok", "level", "checks": [{"id", "status", ...}]}` of plain values."""
        return {
            "ok": self.ok,
            "level": self.level,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }


def all_passed(checks: list[Check]) -> bool:
    """True when every required check among them passed."""
    return all(check.status == "pass" for check in checks if check.required)
