"""The parts of the page that are numbers: the tables of scores and of runs, with their charts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from vez.report.arms import BASE_LABEL, Arm, whole
from vez.report.charts import Dot, Line, Role, dots, lines, smooth, thin
from vez.report.contest import BASE
from vez.report.evidence import Run, setting
from vez.report.phrases import adjusted_p, counted, interval, name_of, plain, signed, told
from vez.report.scored import Difference, Score, Scores

CURVE_POINTS = 90  # as many as a chart of this width can show without fraying
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class ScoreLine:
    """One arm's row in the table of one metric; every cell is text."""

    label: str
    chosen: bool
    mean: str
    interval: str
    n: str
    difference: str
    difference_interval: str
    p: str
    word: str


@dataclass(frozen=True)
class PromptLine:
    """The means over seeds of one prompt, one cell per arm."""

    prompt: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class MetricPart:
    """All about one metric. `lines` is empty where it was not measured; `needs` then says what was missing."""

    key: str
    name: str
    definition: str
    direction: str
    needs: str
    lines: tuple[ScoreLine, ...]
    prompts: tuple[PromptLine, ...]
    means: Markup
    differences: Markup


@dataclass(frozen=True)
class RunLine:
    """One run's row in the table of variants; every cell is text."""

    name: str
    chosen: bool
    state: str
    cells: tuple[str, ...]
    sha256: str


RUN_COLUMNS = ("rank", "alpha", "lr U-Net", "lr text", "batch", "steps", "pictures seen", "time", "file")


def metric_parts(
    scores: Scores | None, arms: Sequence[Arm], *, expected: Sequence[str], chosen: str | None
) -> tuple[MetricPart, ...]:
    """One part per metric: those expected first and whether or not they were measured, then whatever else there is."""
    known = [] if scores is None else [*scores.metrics, *scores.not_measured]
    keys = [*expected, *(key for key in known if key not in expected)]
    return tuple(_metric_part(key, scores, arms, chosen=chosen) for key in keys)


def _metric_part(key: str, scores: Scores | None, arms: Sequence[Arm], *, chosen: str | None) -> MetricPart:
    measured = [] if scores is None else [arm for arm in arms if key in scores.arms.get(arm.name, {})]
    if scores is None or not measured or key not in scores.metrics:
        needs = "" if scores is None else scores.not_measured.get(key, "")
        return MetricPart(key, name_of(key), "", "", needs, (), (), Markup(), Markup())
    metric = scores.metrics[key]
    score = {arm.name: scores.arms.get(arm.name, {}).get(key) for arm in arms}
    change = {arm.name: scores.against_base.get(arm.name, {}).get(key) for arm in arms}
    return MetricPart(
        key=key,
        name=name_of(key),
        definition=metric.definition,
        direction="more is better" if metric.higher_is_better else "less is better",
        needs="",
        lines=tuple(_score_line(arm, score[arm.name], change[arm.name], chosen) for arm in arms),
        prompts=_prompt_lines(scores, key, arms),
        means=_means_chart(name_of(key), arms, score, chosen),
        differences=_differences_chart(name_of(key), arms, change, chosen),
    )


def _score_line(arm: Arm, score: Score | None, change: Difference | None, chosen: str | None) -> ScoreLine:
    if score is None:
        word = "does not apply" if arm.name == BASE else NOT_MEASURED
        return ScoreLine(arm.label, arm.name == chosen, "–", "–", "–", "–", "–", "–", word)
    difference, spread, p = "–", "–", "–"
    if arm.name == BASE:
        word = "what the others are compared with"
    elif change is None:
        word = "not compared with no LoRA"
    else:
        word = change.verdict
        if word == "not distinguishable":
            word += " (too few prompts)" if change.mde is None else f" (would often miss less than {plain(change.mde)})"
        difference, spread = signed(change.diff), interval(change.low, change.high, sign=True)
        value = adjusted_p(change)
        p = "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
    mean = (plain(score.mean), interval(score.low, score.high), counted(score))
    return ScoreLine(arm.label, arm.name == chosen, *mean, difference, spread, p, word)


def _means_chart(name: str, arms: Sequence[Arm], score: Mapping[str, Score | None], chosen: str | None) -> Markup:
    rows = []
    for arm in arms:
        found = score[arm.name]
        if found is not None:
            spread = interval(found.low, found.high)
            title = f"{arm.label}: {plain(found.mean)}, 95 % interval {spread}, {counted(found)}"
            rows.append(Dot(arm.label, found.mean, found.low, found.high, title, arm.role(chosen)))
    return Markup(dots(rows, title=f"{name}: mean of each arm with its 95 % interval", axis="mean over prompts"))


def _differences_chart(
    name: str, arms: Sequence[Arm], change: Mapping[str, Difference | None], chosen: str | None
) -> Markup:
    rows = []
    for arm in arms:
        found = change[arm.name]
        if found is not None:
            title = f"{arm.label} minus {BASE_LABEL}: {told(found)}: {found.verdict}"
            rows.append(Dot(arm.label, found.diff, found.low, found.high, title, arm.role(chosen)))
    if not rows:
        return Markup()
    title = f"{name}: difference of each LoRA to no LoRA with its 95 % interval"
    return Markup(dots(rows, title=title, axis="difference to no LoRA, same noise", zero=0.0, zero_label=BASE_LABEL))


def _prompt_lines(scores: Scores, key: str, arms: Sequence[Arm]) -> tuple[PromptLine, ...]:
    values: dict[tuple[str, str], list[float]] = {}
    prompts: dict[str, None] = {}
    for row in scores.rows:
        if row.metric == key:
            prompts.setdefault(row.prompt)
            values.setdefault((row.prompt, row.arm), []).append(row.value)
    return tuple(
        PromptLine(prompt, tuple(_mean_text(values.get((prompt, arm.name))) for arm in arms)) for prompt in prompts
    )


def _mean_text(values: list[float] | None) -> str:
    return plain(fmean(values)) if values else "–"


def reference_lines(scores: Scores | None) -> tuple[tuple[str, str], ...]:
    """What the scores are read against: (what it is, value); empty where nothing was scored."""
    reference = None if scores is None else scores.reference
    if reference is None:
        return ()
    lines = [("held-out pictures that no LoRA was trained on", str(reference.held_out))]
    if reference.real_likeness is not None:
        lines.append(("mean cosine of two of them", plain(reference.real_likeness)))
    if reference.likeness_span is not None:
        lines.append(("cosine that one unit of similarity stands for", plain(reference.likeness_span)))
    if reference.trigger_cost is not None:
        what = "CLIPscore of the real pictures with the trigger word minus with the describing words"
        lines.append((what, signed(reference.trigger_cost)))
    for arm, cosine in sorted(reference.training_alike.items()):
        what = (
            f"cosine of {arm}’s training pictures to the nearest other one, 95th percentile: above it, look for copies"
        )
        lines.append((what, plain(cosine)))
    return tuple(lines)


def as_reported(scores: Scores | None, arms: Sequence[Arm]) -> tuple[tuple[str, ...], ...]:
    """The reference study's table: (LoRA, mean CLIPscore of the literal prompt, interval, n); empty without it."""
    if scores is None:
        return ()
    found = [(arm.label, scores.arms.get(arm.name, {}).get("T0")) for arm in arms if arm.name not in scores.explored]
    return tuple((label, plain(of.mean), interval(of.low, of.high), counted(of)) for label, of in found if of)


def training_chart(runs: Iterable[Run], *, chosen_run: str | None, title: str) -> Markup:
    """Smoothed training loss against pictures seen; empty where no run wrote a step."""
    curves = []
    for run, batch in _countable(runs):
        half_life = max(1.0, len(run.losses) / 15)
        smoothed = smooth([loss for _, loss in run.losses], half_life=half_life)
        points = [(step * batch, loss) for (step, _), loss in zip(run.losses, smoothed, strict=True)]
        # The average of the first few says more about those few than about the run.
        points = points[round(half_life) :] or points
        curves.append(Line(run.name, thin(points, most=CURVE_POINTS), _run_role(run, chosen_run)))
    return _line_chart(curves, title=title)


def held_out_chart(runs: Iterable[Run], *, chosen_run: str | None, title: str) -> Markup:
    """Loss on the held-out pictures at fixed noise against pictures seen; empty where none was measured."""
    curves = []
    for run, batch in _countable(runs):
        points = [(float(step * batch), loss) for step, loss in run.held_out]
        curves.append(Line(run.name, thin(points, most=CURVE_POINTS), _run_role(run, chosen_run)))
    return _line_chart(curves, title=title)


def gap_chart(runs: Iterable[Run], *, chosen_run: str | None, title: str) -> Markup:
    """Held-out minus trained-on loss at the same fixed noise; empty where one of the two was never measured."""
    curves = []
    for run, batch in _countable(runs):
        trained = dict(run.relearned)
        points = [(float(step * batch), loss - trained[step]) for step, loss in run.held_out if step in trained]
        curves.append(Line(run.name, thin(points, most=CURVE_POINTS), _run_role(run, chosen_run)))
    return _line_chart(curves, title=title, y_axis="held-out loss minus trained-on loss")


def _countable(runs: Iterable[Run]) -> list[tuple[Run, int]]:
    """The runs whose batch is on record: without it steps cannot be turned into pictures, and the curve would lie."""
    batches = [(run, whole(run.settings, "batch")) for run in runs]
    return [(run, batch) for run, batch in batches if batch is not None]


def _line_chart(curves: list[Line], *, title: str, y_axis: str = "mean squared error of the noise") -> Markup:
    if not any(curve.points for curve in curves):
        return Markup()
    return Markup(lines(curves, title=title, x_axis="pictures seen", y_axis=y_axis))


def _run_role(run: Run, chosen_run: str | None) -> Role:
    return "chosen" if run.name == chosen_run else "plain"


def run_lines(runs: Iterable[Run], *, chosen_run: str | None) -> tuple[RunLine, ...]:
    """The table of variants, one line per run; what is not on disk is a dash."""
    return tuple(
        RunLine(run.name, run.name == chosen_run, _state(run), _run_cells(run), run.lora_sha256 or "–") for run in runs
    )


def _run_cells(run: Run) -> tuple[str, ...]:
    rank, batch = whole(run.settings, "rank"), whole(run.settings, "batch")
    alpha = setting(run.settings, "alpha")
    return (
        _text(rank),
        _text(rank if alpha is None else alpha),  # vez.config.Variant: alpha absent means the rank
        _text(setting(run.settings, "lr_unet")),
        _text(setting(run.settings, "lr_text")),
        _text(batch),
        _text(run.steps or None),
        "–" if batch is None or not run.steps else f"{run.steps * batch:,}",
        duration(run.seconds) if run.steps else "–",
        "–" if run.lora_bytes is None else mebibytes(run.lora_bytes),
    )


def _state(run: Run) -> str:
    if run.finished:
        return "finished"
    where = f"stopped at step {run.steps:,} of {run.of:,}" if run.steps else "stopped before its first step"
    return f"{where}: {run.last_words}" if run.last_words else where


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def number_of(count: int, thing: str) -> str:
    """A count with its noun: 1 picture, 2 pictures."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    whole_seconds = round(seconds)
    if whole_seconds >= 3600:
        return f"{whole_seconds // 3600} h {whole_seconds % 3600 // 60} min"
    if whole_seconds >= 60:
        return f"{whole_seconds // 60} min {whole_seconds % 60} s"
    return f"{seconds:.1f} s"


def mebibytes(size: int) -> str:
    """A size in MiB, or in KiB where that says more."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
