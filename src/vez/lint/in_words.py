"""How varied a dataset is, as plain text for a terminal; the report draws the same."""

from vez.images.wording import visible
from vez.lint.artifact import Diversity, Map, Measure

_SHARES = 4  # labels told of each measure


def as_text(diversity: Diversity) -> str:
    """Effective numbers, the map with its holes, what to add first, and what was not measured. Safe to print."""
    lines = [f"how varied the {diversity.pictures} pictures to train on are, as effective numbers"]
    wide = max((len(measure.name) for measure in diversity.measures), default=0)
    lines += [f"  {measure.name:{wide}}  {_number(measure)}" for measure in diversity.measures]
    if diversity.map is not None:
        lines += _drawn(diversity.map)
    if diversity.advice:
        lines.append("to add first")
    for advice in diversity.advice:
        more = f"{advice.pictures} picture{'' if advice.pictures == 1 else 's'}"
        lines.append(f"  {advice.add}: {more} would make the {advice.group} {advice.gain - 1:.0%} more varied")
    if diversity.not_measured:
        lines.append("not measured")
    lines += [f"  {what}: {needs}" for what, needs in sorted(diversity.not_measured.items())]
    return "\n".join(visible(line) for line in lines)


def _number(measure: Measure) -> str:
    known = "" if measure.n == measure.of else f", told of {measure.n} pictures"
    shares = sorted(measure.shares.items(), key=lambda item: -item[1])
    named = ", ".join(f"{label} {share:.0%}" for label, share in shares[:_SHARES] if share >= 0.005)
    rest = ", …" if len(shares) > _SHARES else ""
    return f"{measure.effective:4.1f} of at most {measure.most}{known}{f': {named}{rest}' if named else ''}"


def _drawn(of: Map) -> list[str]:
    """A line for each column of the map, which are the many; a hole is a dot."""
    wide = max(map(len, of.columns), default=0)
    lines = [f"{of.column_group} by {of.row_group}, of {of.n} pictures; a dot is a hole"]
    lines.append(f"  {'':{wide}}  {'  '.join(of.rows)}")
    for i, column in enumerate(of.columns):
        counts = "  ".join(f"{line[i] or '·':>{len(row)}}" for row, line in zip(of.rows, of.counts, strict=True))
        lines.append(f"  {column:{wide}}  {counts}")
    return lines
