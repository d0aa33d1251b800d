"""Pictures drawn while LoRAs train, from the weights that would be saved: the same noise at every step and for all.

Nothing here is drawn from a shared source of randomness and no weight is changed, so a run with pictures becomes, bit
for bit, the run without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vez.base import Conditioning
from vez.config import Project, Prompt, Sampling, Study
from vez.draw import Brush, Drawing, parameters, write_picture
from vez.errors import LoraFileError
from vez.events import Event, Note, Previewed
from vez.passes import Pass, Run
from vez.suite import asked

FOLDER = "samples"  # inside a run's
SHOWN = 3  # prompts, where the study names none


@dataclass(frozen=True)
class Preview:
    """What is drawn every so many steps, before the first one and after the last; the texts are as they are drawn."""

    every: int
    texts: tuple[str, ...]
    sampling: Sampling

    def is_due(self, step: int, *, of: int) -> bool:
        """Whether there are pictures of this step."""
        return step % self.every == 0 or step == of


def preview_of(study: Study, project: Project) -> Preview | None:
    """What a study's runs draw while they train; None where it asks for nothing.

    Its own texts, or the first prompts that it will be judged by and that call the trigger.
    """
    if study.sample_every is None:
        return None
    called = [prompt.text for prompt in asked(study, project).prompts if prompt.role == "trigger"]
    texts = study.sample_prompts or called[:SHOWN] or ("a photo of {trigger} {noun}",)
    return Preview(study.sample_every, tuple(project.expand(text) for text in texts), study.sampling)


@torch.no_grad()
def previews(work: Pass, preview: Preview, *, step: int) -> Iterator[Event]:
    """Draw what lacks of each run's pictures of a step, one at a time. The weights are those to save by now.

    A picture that lies there and says that it is the one asked for is left. Before the first step no LoRA does
    anything, and one run's pictures are all runs'. A run that cannot draw gets a note and goes on.
    """
    brush = Brush(work.base, preview.sampling)  # the base computes in the run's precision already
    prompts = [Prompt(text=text, id=str(i)) for i, text in enumerate(preview.texts, start=1)]
    first: dict[str, NDArray[np.uint8]] = {}
    for v, run in enumerate(work.runs):
        if v in work.stopped:
            continue
        try:
            with work.lora.only(v):
                yield from _of_run(brush, run, prompts, first if step == 0 else {}, step=step)
        except (LoraFileError, torch.OutOfMemoryError) as error:
            why = "the memory is too small" if isinstance(error, torch.OutOfMemoryError) else str(error)
            yield run.record(Note(f"{run.name} has no pictures of step {step}: {why}", step))


def _of_run(
    brush: Brush, run: Run, prompts: Sequence[Prompt], drawn: dict[str, NDArray[np.uint8]], *, step: int
) -> Iterator[Event]:
    texts: dict[str, Conditioning] = {}
    for prompt in prompts:
        file = f"{FOLDER}/step-{step:06d}-{prompt.id}.png"
        drawing = Drawing(prompt, 0, file, "")
        said = f"{parameters(brush, drawing, label='', strength=1.0, sha256='')}, Trained: {run.name} step {step}"
        if _said_by(run.folder / file) != said:
            if prompt.id not in drawn:
                texts = texts or brush.encode(prompts)
                drawn[prompt.id] = brush.draw([(prompt, 0)], texts, arm=run.name, steps=brush.sampling.steps)[0]
            write_picture(run.folder / file, drawn[prompt.id], said)
        yield run.record(Previewed(run.name, step, prompt.text, Path(file)))


def _said_by(file: Path) -> str | None:
    """The parameters that a picture was drawn with; None where there is none that can be read."""
    try:
        with Image.open(file) as image:
            image.load()
            found = image.info.get("parameters")
            return found if isinstance(found, str) else None
    except (OSError, SyntaxError, ValueError):  # Pillow's for a torn PNG
        return None
