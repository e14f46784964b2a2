"""The report's words about the adapter's verification: a verdict is believed only as far as its checks bear it out."""

from __future__ import annotations

from typing import Any, NamedTuple

from jobs import wording
from jobs.checks import Check, Status
from jobs.report_html import (
    Html,
    Section,
    Words,
    cell,
    column,
    fitting,
    folded,
    foreign,
    paragraph,
    row_head,
    section,
    table,
    text,
)

MAX_CHECKS = 200
MAX_BYTES = 120_000
_STATUSES: dict[Status, tuple[str, str]] = {
    "pass": ("✓ pass", "✓ 通过"),
    "warn": ("! warning", "! 警告"),
    "fail": ("✗ fail", "✗ 失败"),
    "not_checked": ("– not checked", "– 未检查"),
}


class Verdict(NamedTuple):
    """A status of `checks.Status`, a word for it, and a line about it."""

    status: str
    word: Html
    detail: Html


def verdict(verification: dict[str, Any] | None, words: Words) -> Verdict:
    """What a verification comes to; the document may come from a host, so its own `ok` is not enough."""
    if verification is None:
        proves = words("launch verify proves what it is", "用 launch verify 加以证明")
        return Verdict("warn", words("not verified", "未验证"), proves)
    checks = checks_of(verification)
    required = [check for check in checks if check.required]
    met = sum(check.status == "pass" for check in required)
    if failed := sum(check.status == "fail" for check in checks):
        said = words(
            "{failed} of {all} checks failed", "{all} 项检查中有 {failed} 项失败", failed=failed, all=len(checks)
        )
        return Verdict("fail", words("failed", "未通过"), said)
    if verification.get("ok") is True and required and met == len(required):
        level = wording.term(str(verification.get("level") or ""), words.lang)
        return Verdict("pass", words("verified", "已验证"), foreign(level, 80))
    said = words(
        "{met} of {all} required checks passed", "{all} 项必需检查中通过了 {met} 项", met=met, all=len(required)
    )
    return Verdict("warn", words("not proven", "未得到证明"), said)


def verification_section(verification: dict[str, Any] | None, words: Words) -> Section:
    """The verdict and every check."""
    status, word, detail = verdict(verification, words)
    line = words("The adapter: {word} ({detail}).", "适配器：{word}（{detail}）。", word=word, detail=detail)
    checks = checks_of(verification or {})
    limit = fitting((part for one in checks for part in (one.id, one.detail, one.meaning, one.todo)), 600, MAX_BYTES)
    rows = {
        check: [
            cell(text(_STATUSES[check.status][words.lang == "zh"]), css=f"status {check.status}"),
            row_head(foreign(check.id.replace("_", " "), min(120, limit))),
            cell(_found(check, limit)),
        ]
        for check in checks
    }
    header = [column(words("Status", "状态")), column(words("Check", "检查")), column(words("Found", "结果"))]
    # Nobody reads through what passed to find what did not.
    passed = [cells for check, cells in rows.items() if check.status == "pass"]
    others = [cells for check, cells in rows.items() if check.status != "pass"]
    shown = table("checks stack", header, others) if others else ""
    if passed:
        title = words("Checks that passed", "通过的检查")
        shown += folded(f'{title} <span class="count">{len(passed)}</span>', table("checks stack", header, passed))
    return section("verification", words("Verification", "验证"), paragraph(line, f"note {status}"), shown)


def checks_of(verification: dict[str, Any]) -> list[Check]:
    """The checks of a verdict from anywhere; a status that is none counts as not checked."""
    listed = verification.get("checks")
    found = []
    for one in listed[:MAX_CHECKS] if isinstance(listed, list) else []:
        if isinstance(one, dict):
            name, detail, meaning, todo = (str(one.get(key) or "") for key in ("id", "detail", "meaning", "todo"))
            status: Status = next((known for known in _STATUSES if known == one.get("status")), "not_checked")
            found.append(Check(name, status, detail, meaning, todo, one.get("required") is not False))
    return found


def _found(check: Check, limit: int) -> str:
    """What a check found and, where it did not pass, what that means and what to do."""
    advice = "; ".join(words for words in (check.meaning, check.todo) if words)
    more = f'<br><span class="small">{foreign(advice, limit)}</span>' if advice and check.status != "pass" else ""
    return foreign(check.detail, limit) + more
