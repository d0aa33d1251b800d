"""The results in plain words and one table a question, for a terminal."""

from collections.abc import Sequence

from vez.judging.agreement import LIKELY, POWER, Share, votes_needed
from vez.judging.analysis import MetricAgreement, Pairing, Rate, Strength, Verdicts
from vez.judging.judges import Between, Judge
from vez.judging.plan import Question
from vez.judging.results import Results

TITLES: dict[Question, str] = {
    "concept": "Which one shows the concept more faithfully?",
    "text": "Which one follows the text better?",
}
BASE_LABEL = "no LoRA"
AGREES = (
    (0.8, "they agree well"),
    (0.667, "they agree moderately"),
    (0.0, "they agree little: the arms are close, or they look at different things"),
)


def as_text(results: Results) -> str:
    """Everything a person needs to know of the votes."""
    parts = [_question(verdicts, results.base) for verdicts in results.questions]
    if results.trusted:
        without = ", ".join(judge.judge for judge in results.judges if judge.flags)
        found = "; ".join(f"{TITLES[v.question]} {headline(v, results.base)}" for v in results.trusted)
        parts.append(f"Without the votes of {without}: {found}")
    parts.append("\n".join(_judge(judge) for judge in results.judges))
    if results.outdated:
        parts.append(f"{_number(results.outdated, 'vote')} on pictures that were drawn anew since: left out.")
    return "\n\n".join(part for part in parts if part)


def _question(of: Verdicts, base: str | None) -> str:
    head = (
        f"{TITLES[of.question]}  {_number(of.comparisons, 'comparison')} by {_number(of.judges, 'judge')}, "
        f"{_number(of.prompts, 'prompt')}"
    )
    lines = [head, "", *_table(of, base), "", headline(of, base)]
    lines += [_pairing(pairing, base) for pairing in sorted(of.pairings, key=lambda pairing: pairing.p_holm)]
    if len(of.pairings) > 1:
        lines.append(
            f"The intervals are of each two alone; “preferred” also allows for testing {len(of.pairings)} of them "
            "at once."
        )
    if any(pairing.preferred is None for pairing in of.pairings):
        least = min(of.pairings, key=lambda pairing: pairing.decided.n)
        lines.append(
            f"The fewest decided votes between two arms are {least.decided.n}: they miss a true preference of "
            f"{LIKELY:.0%} in {1 - least.would_see:.0%} of cases. It takes about {votes_needed()} to see it in "
            f"{POWER:.0%}: compare fewer arms (--arm), or get more votes."
        )
    if of.between is not None:
        lines.append(_between(of.between))
    if of.metrics:
        lines += ["", "What the metrics say of the same pictures:", *map(_metric, of.metrics)]
    return "\n".join(lines)


def _table(of: Verdicts, base: str | None) -> list[str]:
    head = ["arm", "won", "tied", "lost", f"preferred to {BASE_LABEL}", "is the strongest in"]
    rows = [_row(arm, base) for arm in sorted(of.arms, key=lambda arm: -arm.strength)]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def _row(arm: Strength, base: str | None) -> list[str]:
    over = "" if arm.over_base is None else _rate(arm.over_base)
    return [_name(arm.arm, base), str(arm.wins), str(arm.ties), str(arm.losses), over, f"{arm.best:.0%} of resamples"]


def headline(of: Verdicts, base: str | None) -> str:
    """One sentence: which arm is preferred, and from which it cannot be told apart."""
    first = of.strongest
    equals = [
        pairing.second if pairing.first == first.arm else pairing.first
        for pairing in of.pairings
        if first.arm in (pairing.first, pairing.second) and pairing.preferred is None
    ]
    if not equals:
        return f"{_name(first.arm, base)} is preferred to every other."
    others = _list([_name(arm, base) for arm in equals]) if len(equals) < 6 else f"{len(equals)} others"
    return f"{_name(first.arm, base)} has the most preference, but cannot be told apart from {others}."


def _pairing(of: Pairing, base: str | None) -> str:
    """One line on two arms, the better one first where one is."""
    names, rate, won = (of.first, of.second), of.rate, of.decided.k
    if rate.rate < 0.5:
        names, rate, won = (of.second, of.first), _flipped(rate), of.decided.n - of.decided.k
    first, second = (_name(arm, base) for arm in names)
    votes = f"{_rate(rate)} by all votes together; {won:g} of {of.decided.n} decided votes between the two"
    if of.preferred is not None:
        return f"- {first} is preferred to {second}: {votes}."
    return f"- No preference found between {first} and {second}: for {first} {votes}."


def _flipped(of: Rate) -> Rate:
    low, high = (None if limit is None else 1 - limit for limit in (of.high, of.low))
    return Rate(1 - of.rate, low, high)


def _judge(judge: Judge) -> str:
    told = [f"Judge {judge.judge}: {_number(judge.votes, 'vote')}"]
    if judge.seconds is not None:
        told.append(f"{judge.seconds:.1f} s each")
    if judge.alike.n:
        told.append(f"{judge.alike.k:g} of {judge.alike.n} mirrored repeats answered alike")
    if judge.left.n:
        told.append(f"left side chosen in {_share(judge.left)}")
    if judge.ties_of_same.n:
        told.append(f"{judge.ties_of_same.k:g} of {judge.ties_of_same.n} pairs of one arm with itself called equal")
    flags = [f"\n  ! {flag}; rest and judge again" for flag in judge.flags]
    return ", ".join(told) + "." + "".join(flags)


def _between(of: Between) -> str:
    same = f"on {_number(of.units, 'pair')} that several judges saw they gave the same answer in {_share(of.same)}"
    if of.alpha is None:
        return f"Judges: {same}."
    word = next((said for least, said in AGREES if of.alpha >= least), "they agree no more than by chance")
    return f"Judges: {same}; Krippendorff's α is {of.alpha:.2f}: {word}."


def _metric(of: MetricAgreement) -> str:
    votes = "no decided vote to compare with" if not of.votes.n else f"agrees with {_share(of.votes)} of decided votes"
    rank = "" if of.spearman is None else f"; rank correlation over {of.arms} arms {of.spearman:+.2f}"
    return f"- {of.metric}: {votes}{rank}"


def _name(arm: str, base: str | None) -> str:
    return BASE_LABEL if arm == base else arm


def _rate(of: Rate) -> str:
    limits = "no interval: one prompt" if of.low is None or of.high is None else f"95 % {of.low:.0%} to {of.high:.0%}"
    return f"{of.rate:.0%} ({limits})"


def _share(of: Share) -> str:
    return f"{of.rate:.0%} ({of.k:g} of {of.n}; 95 % {of.low:.0%} to {of.high:.0%})"


def _number(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
