"""The arms of a study in the order they are shown: every LoRA, then no LoRA; and the run behind each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vez import sweep
from vez.report.charts import Role
from vez.report.contest import BASE
from vez.report.evidence import Evidence, Run, setting
from vez.report.verdict import Effort
from vez.sweep import Arm as Drawn

BASE_LABEL = "no LoRA"


@dataclass(frozen=True)
class Arm:
    """One column of the grid. `run` is None for no LoRA, and for a LoRA whose run is not there.

    `step` is that of a LoRA from before the run's end, None for its end and where it is not known; `variant` and `seed`
    (of the training) are None where the samples do not say. `called` is its name in a sentence.
    """

    name: str
    run: Run | None
    step: int | None = None
    strength: float = 1.0
    variant: str | None = None
    seed: int | None = None
    called: str = ""

    @property
    def label(self) -> str:
        """What a reader sees."""
        return BASE_LABEL if self.name == BASE else self.name

    @property
    def reached(self) -> int | None:
        """Optimizer steps that its LoRA took; None where unknown."""
        if self.run is None:
            return self.step
        return self.step or self.run.steps or whole(self.run.settings, "steps")

    @property
    def file(self) -> str | None:
        """The LoRA in the study's folder; None for no LoRA and where its run is not known."""
        if self.run is None:
            return None
        return f"runs/{self.run.name}/{'lora' if self.step is None else f'lora-{self.step:06d}'}.safetensors"

    @property
    def setting(self) -> str | None:
        """What it shares with LoRAs of other training seeds, as `vez.metrics.scores` names it."""
        if self.run is None or self.variant is None:
            return None
        ours = self.name.startswith(self.run.name)
        return self.variant + self.name.removeprefix(self.run.name) if ours else self.name

    def role(self, chosen: str | None) -> Role:
        """How a chart sets it apart."""
        return "base" if self.name == BASE else "chosen" if self.name == chosen else "plain"


def arms_of(evidence: Evidence) -> tuple[Arm, ...]:
    """The arms that were drawn or scored, in the order they were drawn, no LoRA last."""
    scored = evidence.scores.arms if evidence.scores else {}
    names = list(dict.fromkeys([*(row.arm for row in evidence.drawn), *scored]))
    names.sort(key=lambda name: name == BASE)  # stable: only moves no LoRA
    recorded = _recorded(evidence)
    return tuple(_arm(name, evidence.runs, recorded) for name in names)


def efforts_of(arms: Sequence[Arm]) -> dict[str, Effort]:
    """What each arm with a LoRA cost, and what it is called."""
    return {
        arm.name: Effort(
            arm.reached,
            None if arm.run is None else whole(arm.run.settings, "rank"),
            arm.strength,
            called=arm.called,
            setting=arm.setting,
        )
        for arm in arms
        if arm.name != BASE
    }


def whole(settings: Mapping[str, object], name: str) -> int | None:
    """A setting that is a whole number; None where it is absent."""
    value = setting(settings, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _recorded(evidence: Evidence) -> Mapping[str, Drawn | None]:
    """What the samples say of their arms; nothing where they were made by another program."""
    samples = evidence.samples
    return {} if samples is None or "suite" not in samples.config else sweep.arms_of(samples)


def _arm(name: str, runs: tuple[Run, ...], recorded: Mapping[str, Drawn | None]) -> Arm:
    drawn = recorded.get(name)
    if drawn is None or drawn.run is None:
        return Arm(name, _run_of(name, runs))
    run = next((run for run in runs if run.name == drawn.run), None)
    step = None if drawn.last else drawn.step
    return Arm(name, run, step, drawn.strength, drawn.variant, drawn.seed, _called(name, drawn, recorded))


def _called(name: str, drawn: Drawn, recorded: Mapping[str, Drawn | None]) -> str:
    """The variant, and whatever of training seed, step and strength sets it apart from the others of it."""
    siblings = [of for of in recorded.values() if of is not None and of.variant == drawn.variant]
    said = [drawn.variant or name]
    if len({of.seed for of in siblings}) > 1:
        said.append(f"training seed {drawn.seed}")
    if len({of.step for of in siblings}) > 1:
        said.append(f"step {drawn.step}")
    if drawn.strength != 1 or len({of.strength for of in siblings}) > 1:
        said.append(f"strength {drawn.strength:g}")
    return ", ".join(said)


def _run_of(name: str, runs: tuple[Run, ...]) -> Run | None:
    exact = [run for run in runs if run.name == name]
    of_variant = [run for run in runs if run.variant == name]
    if exact:
        return exact[0]
    return of_variant[0] if len(of_variant) == 1 else None
