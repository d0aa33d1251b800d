"""Findings: remarks on pictures and captions. None of them deletes or changes anything.

A finding says what was measured, against which threshold, why it matters, and how to fix or to waive it. A waiver in
vez.toml accepts it: it then keeps its place in the records, with the reason, and counts no longer.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from vez.config import Waiver

Level = Literal["error", "warning", "info"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One remark. ``file`` is the picture it is about, or "*" for the whole set."""

    file: str
    check: str
    """Which check: a `vez.config.CheckName` or `vez.config.WordCheckName`."""
    value: str | float
    """What was measured."""
    threshold: str | float
    why: str
    """Why it matters, as a clause."""
    fix: str
    """What to do about it, as a clause."""
    other: str = ""
    """The second picture, where the finding is about two."""
    level: Level = "warning"
    waived: str = ""
    """The reason why it is accepted; empty: it is not."""


def waive(findings: Iterable[Finding], waivers: Sequence[Waiver]) -> list[Finding]:
    """The findings, those that a waiver accepts marked with its reason."""
    marked = []
    for finding in findings:
        reason = next((w.reason for w in waivers if w.check == finding.check and w.file in ("*", finding.file)), "")
        marked.append(replace(finding, waived=reason) if reason else finding)
    return marked


def open_errors(findings: Iterable[Finding]) -> int:
    """How many errors stand that nobody has waived: what decides an exit code."""
    return sum(finding.level == "error" and not finding.waived for finding in findings)


def as_text(findings: Sequence[Finding], dataset: str) -> str:
    """The findings for a person, worst first, each with a line to fix it and one to waive it; then a count."""
    lines = []
    for finding in sorted(findings, key=lambda f: (bool(f.waived), LEVELS.index(f.level))):
        place = finding.file if finding.file != "*" else "the whole set"
        measured = _measured(finding)
        lines.append(f"{'waived' if finding.waived else finding.level:8}{place}: {finding.check}{measured}")
        lines.append(f"        {finding.why}")
        if finding.waived:
            lines.append(f"        accepted: {finding.waived}")
        else:
            lines.append(f"        fix:   {finding.fix}")
            if finding.level != "info" and finding.check != "unreadable":
                lines.append(f"        waive: vez waive {dataset} {finding.check} {_quoted(finding.file)} --because …")
    counts = [f"{n} {level}{'' if n == 1 else 's'}" for level in LEVELS if (n := _open(findings, level))]
    waived = sum(bool(finding.waived) for finding in findings)
    lines.append(", ".join([*(counts or ["no findings"]), *([f"{waived} waived"] if waived else [])]))
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    """The findings for a machine: a JSON array of objects with the fields of `Finding`."""
    return json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=1)


def from_row(row: dict[str, Any]) -> Finding:
    """The finding that `asdict` wrote. Raises TypeError for a row that is none."""
    return Finding(**row)


def _open(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level == level and not finding.waived for finding in findings)


def _measured(finding: Finding) -> str:
    value = f"{finding.value:g}" if isinstance(finding.value, float | int) else finding.value
    limit = f"{finding.threshold:g}" if isinstance(finding.threshold, float | int) else finding.threshold
    return f" ({value}{f'; threshold {limit}' if limit else ''})" if value else ""


def _quoted(file: str) -> str:
    return file if all(c.isalnum() or c in "._-/" for c in file) else "'" + file.replace("'", "'\\''") + "'"
