"""Findings: remarks on pictures and captions. None of them deletes or changes anything.

A finding says what was measured, against which threshold, why it matters, and how to fix or to waive it. A waiver in
vez.toml accepts it: it then keeps its place in the records, with the reason, and counts no longer.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from vez.config import PICTURE_CHECKS, Waiver
from vez.images.wording import visible

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
    left_out: bool = False
    """The picture, or the other of the two, is left out of the dataset, so nothing is left to be done."""

    @property
    def is_open(self) -> bool:
        """Nobody has dealt with it yet."""
        return not self.waived and not self.left_out


def waive(findings: Iterable[Finding], waivers: Sequence[Waiver]) -> list[Finding]:
    """The findings, those that a waiver accepts marked with its reason."""
    marked = []
    for finding in findings:
        reason = next((w.reason for w in waivers if w.check == finding.check and w.file in ("*", finding.file)), "")
        marked.append(replace(finding, waived=reason) if reason else finding)
    return marked


def settle(findings: Iterable[Finding], left_out: Collection[str]) -> list[Finding]:
    """The findings, those about files that are left out of the dataset marked so, alone or as one of two."""
    return [
        replace(finding, left_out=True) if finding.file in left_out or finding.other in left_out else finding
        for finding in findings
    ]


def open_errors(findings: Iterable[Finding]) -> int:
    """How many errors stand that nobody has dealt with: what decides an exit code."""
    return _open(findings, "error")


def as_text(findings: Sequence[Finding], dataset: str) -> str:
    """The findings for a person, worst first, each with a line to fix it and one to waive it; then a count."""
    lines = []
    for finding in sorted(findings, key=lambda f: (not f.is_open, LEVELS.index(f.level))):
        place = visible(finding.file) if finding.file != "*" else "the whole set"
        label = "left out" if finding.left_out else "waived" if finding.waived else finding.level
        lines.append(f"{label:9}{place}: {finding.check}{_measured(finding)}")
        lines.append(f"         {visible(finding.why)}")
        if finding.waived:
            lines.append(f"         accepted: {visible(finding.waived)}")
        elif finding.is_open:
            lines.append(f"         fix:   {visible(finding.fix)}")
            if finding.level != "info":
                lines += _commands(finding, dataset)
    counts = [f"{n} {level}{'' if n == 1 else 's'}" for level in LEVELS if (n := _open(findings, level))]
    left_out = sum(finding.left_out for finding in findings)
    waived = sum(bool(finding.waived) and not finding.left_out for finding in findings)
    dealt = [f"{n} {what}" for n, what in ((left_out, "about what is left out"), (waived, "waived")) if n]
    lines.append(", ".join([*(counts or ["nothing to do"]), *dealt]))
    return "\n".join(lines)


def _open(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level == level and finding.is_open for finding in findings)


def _commands(finding: Finding, dataset: str) -> list[str]:
    """The lines to be typed: to leave the picture out, and to accept the finding."""
    file = _quoted(finding.file)
    # behind "--" a name that begins with "-" is no option
    named = f"--because … -- {file}" if finding.file.startswith("-") else f"{file} --because …"
    waive = f"         waive: vez waive {_quoted(dataset)} {finding.check} {named}"
    if finding.check in PICTURE_CHECKS and finding.file != "*":
        return [f"         drop:  vez exclude {_quoted(dataset)} {named}", waive]
    return [waive]


def _measured(finding: Finding) -> str:
    value = f"{finding.value:g}" if isinstance(finding.value, float | int) else finding.value
    limit = f"{finding.threshold:g}" if isinstance(finding.threshold, float | int) else finding.threshold
    value = visible(value)
    return f" ({value}{f'; threshold {limit}' if limit else ''})" if value else ""


def _quoted(file: str) -> str:
    """As a shell reads it; what a terminal would obey or hide is written with escapes, as bash and zsh read them."""
    if visible(file) != file:
        return "$'" + "".join(_escaped(c) for c in file) + "'"
    return file if all(c.isalnum() or c in "._-/" for c in file) else "'" + file.replace("'", "'\\''") + "'"


def _escaped(character: str) -> str:
    if visible(character) == character and character not in "'\\":
        return character
    # a byte of a damaged file name is itself again
    how = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", how))
