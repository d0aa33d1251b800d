"""The part of the page about a dataset that lint wrote: its findings, how varied it is, what to add."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from vez.images.findings import LEVELS, Finding
from vez.lint.artifact import Advice, Attribute, Diversity, Lint, Map, Measure, Trust
from vez.report.figures import number_of

MOST_FINDINGS = 200
_WIDTH, _ROW, _LEFT, _BAR = 440, 30, 96, 190


@dataclass(frozen=True)
class FindingLine:
    """One finding; every cell is text."""

    state: str
    file: str
    check: str
    value: str
    limit: str
    why: str
    fix: str


@dataclass(frozen=True)
class MeasureLine:
    """One effective number; every cell is text."""

    name: str
    effective: str
    of: str
    told_by: str
    shares: str
    how: str


@dataclass(frozen=True)
class LintPart:
    """What lint says about one dataset; ``left_out`` findings are only in its file."""

    summary: str
    errors: int
    findings: tuple[FindingLine, ...]
    left_out: int
    bars: Markup
    measures: tuple[MeasureLine, ...]
    map: Map | None
    advice: tuple[tuple[str, str], ...]
    attributes: tuple[Attribute, ...]
    trust: tuple[str, ...]
    not_measured: tuple[tuple[str, str], ...]
    clip: str


def lint_parts(lints: Iterable[Lint]) -> dict[str, LintPart]:
    """Dataset id → what lint says about it; of two lints of one dataset the first."""
    found: dict[str, LintPart] = {}
    for lint in lints:
        found.setdefault(lint.dataset, _part(lint.findings, lint.diversity))
    return found


def _part(findings: Sequence[Finding], diversity: Diversity) -> LintPart:
    worst_first = sorted(findings, key=lambda f: (bool(f.waived), LEVELS.index(f.level)))
    return LintPart(
        summary=_summary(findings),
        errors=sum(f.level == "error" and not f.waived for f in findings),
        findings=tuple(_line(finding) for finding in worst_first[:MOST_FINDINGS]),
        left_out=max(0, len(findings) - MOST_FINDINGS),
        bars=bars(diversity.measures),
        measures=tuple(_measure_line(measure) for measure in diversity.measures),
        map=diversity.map,
        advice=tuple(_advice_line(advice) for advice in diversity.advice),
        attributes=diversity.attributes,
        trust=tuple(line for trust in diversity.trust if (line := _trust_line(trust))),
        not_measured=tuple(sorted(diversity.not_measured.items())),
        clip=diversity.clip,
    )


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(f.level for f in findings if not f.waived)
    parts = [number_of(counts[level], level) for level in LEVELS[:2] if counts[level]]
    if counts["info"]:
        parts.append(number_of(counts["info"], "remark"))
    if waived := sum(bool(f.waived) for f in findings):
        parts.append(f"{waived} waived")
    return ", ".join(parts) or "nothing found"


def _line(finding: Finding) -> FindingLine:
    place = "the whole set" if finding.file == "*" else finding.file
    return FindingLine(
        state="waived" if finding.waived else finding.level,
        file=f"{place} and {finding.other}" if finding.other else place,
        check=finding.check,
        value=_text(finding.value),
        limit=_text(finding.threshold),
        why=finding.why,
        fix=f"accepted: {finding.waived}" if finding.waived else finding.fix,
    )


def _text(value: str | float) -> str:
    return (value if isinstance(value, str) else f"{value:g}") or "–"


def _measure_line(measure: Measure) -> MeasureLine:
    shares = sorted(measure.shares.items(), key=lambda item: -item[1])
    return MeasureLine(
        name=measure.name,
        effective=f"{measure.effective:.1f}",
        of=f"{measure.n} of {measure.of}" if measure.n != measure.of else f"{measure.n}",
        told_by=", ".join(f"{who} {n}" for who, n in sorted(measure.told_by.items())) or "–",
        shares=", ".join(f"{label} {share:.0%}" for label, share in shares if share >= 0.005) or "–",
        how=measure.how,
    )


def _advice_line(advice: Advice) -> tuple[str, str]:
    """(what to add, what it would do)."""
    more = number_of(advice.pictures, "picture")
    return advice.add, f"{more} would make the {advice.group} {advice.gain - 1:.0%} more varied"


def _trust_line(trust: Trust) -> str:
    if trust.state == "unchecked":
        return f"{trust.group}: unchecked, since {number_of(trust.n, 'caption')} of those it could answer name one"
    if trust.state == "agrees":
        by_chance = f"{trust.chance * trust.n:.0f} would by chance"
        return f"{trust.group}: agrees with {trust.agree} of the {trust.n} captions that name one ({by_chance})"
    return ""


def bars(measures: Sequence[Measure]) -> Markup:
    """Effective numbers as bars of how many there could be, as inline SVG; empty where there is nothing to draw."""
    if not measures:
        return Markup()
    height = _ROW * len(measures) + 8
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-label="Effective numbers, as shares of how many there could be">'
    ]
    for i, measure in enumerate(measures):
        y = 4 + i * _ROW
        share = min(1.0, measure.effective / measure.most) if measure.most else 0.0
        words = f"{measure.effective:.1f} of at most {measure.most}"
        parts.append(
            f"<g><title>{escape(measure.name)}: {words}</title>"
            f'<text x="{_LEFT - 10}" y="{y + 19}" text-anchor="end">{escape(measure.name)}</text>'
            f'<rect class="room" x="{_LEFT}" y="{y + 5}" width="{_BAR}" height="18"/>'
            f'<rect class="full" x="{_LEFT}" y="{y + 5}" width="{_BAR * share:.1f}" height="18"/>'
            f'<text x="{_LEFT + _BAR + 10}" y="{y + 19}">{words}</text></g>'
        )
    return Markup("".join([*parts, "</svg>"]))  # every text in it was escaped above
