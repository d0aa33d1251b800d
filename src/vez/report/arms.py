"""The arms of a study in the order they are shown: every LoRA, then no LoRA; and the run behind each."""

from collections.abc import Mapping
from dataclasses import dataclass

from vez import sweep
from vez.report.charts import Role
from vez.report.evidence import Evidence, Run, setting
from vez.report.verdict import Effort
from vez.sweep import Arm as Drawn

BASE = "base"  # the reserved name of the arm without a LoRA (vez.config.Study)
BASE_LABEL = "no LoRA"


@dataclass(frozen=True)
class Arm:
    """One column of the grid. `run` is None for no LoRA, and for a LoRA whose run is not there.

    `step` is that of a LoRA from before the run's end, None for its end and where it is not known.
    """

    name: str
    run: Run | None
    step: int | None = None
    strength: float = 1.0

    @property
    def label(self) -> str:
        """What a reader sees."""
        return BASE_LABEL if self.name == BASE else self.name

    def role(self, chosen: str | None) -> Role:
        """How a chart sets it apart."""
        return "base" if self.name == BASE else "chosen" if self.name == chosen else "plain"


def arms_of(evidence: Evidence) -> tuple[Arm, ...]:
    """The arms that were drawn or scored, in the order they were drawn, no LoRA last."""
    scored = evidence.scores.arms if evidence.scores else {}
    names = list(dict.fromkeys([*(row.arm for row in evidence.drawn), *scored]))
    names.sort(key=lambda name: name == BASE)  # stable: only moves no LoRA
    recorded = _recorded(evidence)
    return tuple(_arm(name, evidence.runs, recorded.get(name)) for name in names)


def efforts_of(arms: tuple[Arm, ...]) -> dict[str, Effort]:
    """What each arm with a LoRA cost."""
    return {arm.name: _effort(arm.run, arm.step) for arm in arms if arm.name != BASE}


def whole(settings: Mapping[str, object], name: str) -> int | None:
    """A setting that is a whole number; None where it is absent."""
    value = setting(settings, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _recorded(evidence: Evidence) -> Mapping[str, Drawn | None]:
    """What the samples say of their arms; nothing where they were made by another program."""
    samples = evidence.samples
    return {} if samples is None or "suite" not in samples.config else sweep.arms_of(samples)


def _arm(name: str, runs: tuple[Run, ...], drawn: Drawn | None) -> Arm:
    if drawn is None or drawn.run is None:
        return Arm(name, _run_of(name, runs))
    run = next((run for run in runs if run.name == drawn.run), None)
    return Arm(name, run, None if drawn.last else drawn.step, drawn.strength)


def _run_of(name: str, runs: tuple[Run, ...]) -> Run | None:
    exact = [run for run in runs if run.name == name]
    of_variant = [run for run in runs if run.variant == name]
    if exact:
        return exact[0]
    return of_variant[0] if len(of_variant) == 1 else None


def _effort(run: Run | None, step: int | None) -> Effort:
    if run is None:
        return Effort(None, None)
    return Effort(step or run.steps or whole(run.settings, "steps"), whole(run.settings, "rank"))
