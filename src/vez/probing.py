"""The probes of a study: which checkpoints are asked, beside which class, and what it costs, told beforehand.

Loads no model before it asks one; `vez.metrics.probes` does the asking.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vez import rates, suite
from vez.config import Config, Study
from vez.dataset import load as load_dataset
from vez.events import Event, Note
from vez.metrics.probed import MOST, forwards
from vez.plan import Pass, image_rate_key, span
from vez.sweep import Arm, counted

if TYPE_CHECKING:
    from vez.base import Base

PROBED = ("probe", "standard", "thorough")
"""The profiles under which `vez study` probes; under others it draws so few pictures that probes would cost as much."""


def is_part_of(study: Study) -> bool:
    """Whether the whole study makes probes unasked; `vez probe` makes them of any."""
    return (study.sampling.profile or ("standard" if study.suite != "own" else "own")) in PROBED


def planned(config: Config, name: str, passes: Iterable[Pass], *, device: str) -> str:
    """What the probes of these passes' runs will cost, for a person; "" where the study makes none."""
    study = config.study[name]
    if not is_part_of(study):
        return ""
    asked = []
    for one in passes:
        saved = counted(one.steps, save_every=study.save_every, keep=study.keep, checkpoints="all")
        arms = len(one.variants) * len(study.seeds) * saved * len(study.sampling.strengths)
        asked += [(config.dataset[one.dataset].held_out, one.pictures)] * arms
    return cost(config, name, asked, device=device)


def cost(config: Config, name: str, asked: Iterable[tuple[int, int]], *, device: str) -> str:
    """The cost of asking arms whose datasets hold out, and train on, so many pictures; in pictures drawn instead."""
    each = [forwards(held_out=held_out, train=train) for held_out, train in asked]
    how = config.study[name].sampling
    drawn = how.steps * (1 if how.cfg == 1 else 2)  # forwards of one picture
    images = (sum(each) + max(each, default=0)) / drawn + MOST  # the base is asked too, and draws the class pictures
    rate = rates.read(config.root).get(image_rate_key(config, name, device=device))
    time = "" if rate is None else f", about {span(rate * images)}"
    return f"probes of {len(each)} saved LoRAs without drawing with them: the work of {images:.0f} images{time}"


def probe(
    config: Config, name: str, arms: Mapping[str, Arm], *, base: "Base", datasets: Mapping[str, Path], into: Path
) -> Iterator[Event]:
    """Say what it costs, and ask the study's arms; ``datasets`` by their names. Arms without a LoRA are passed over."""
    from vez.metrics import probes

    study = config.study[name]
    loras = {arm: of for arm, of in arms.items() if of.lora is not None}
    learned = {v: probes.worded(load_dataset(datasets[of.dataset]), of) for v, of in study.variant.items()}
    of_arms = {arm: learned[str(of.variant)] for arm, of in loras.items()}
    asked = [(len(of.held_out), len(of.train)) for of in of_arms.values()]
    yield Note(cost(config, name, asked, device=base.device.type))
    yield from probes.probe(
        base,
        loras,
        of_arms,
        project=config.project,
        class_texts=suite.class_texts(study, config.project),
        sampling=study.sampling,
        into=into,
        precision=study.precision,
        cache=config.root / ".vez",
    )
