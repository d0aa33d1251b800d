"""One kind of concept's words, and the prompts of a suite that are made of them."""

from dataclasses import dataclass

from vez.config import Prompt

TRIGGERED, DESCRIBED, WRONG = "{trigger} {noun}", "{describes}", "{wrong} {noun}"
STANDARD_SCENES = 12
"""Scenes of B that the trigger ablation D repeats."""

Lines = tuple[Prompt, ...]
"""All prompts of a suite for one kind of concept, in the order they are drawn."""


@dataclass(frozen=True)
class Wording:
    """How one kind of concept is asked for.

    ``{concept}`` stands for the trigger with its noun, or what replaces it; ``{scene}`` for the scene. ``without`` is
    the scene with the concept taken out, which the context score asks; ``plain`` is a whole prompt for it.
    ``distribution``, ``composition`` and ``again`` are pairs of a text and its context.
    """

    with_concept: str
    without: str
    plain: str
    scenes: tuple[str, ...]
    distribution: tuple[tuple[str, str], ...]
    composition: tuple[tuple[str, str], ...]
    neighbours: tuple[str, ...]
    unrelated: tuple[str, ...]
    again: tuple[tuple[str, str], ...]
    triggered: str = TRIGGERED

    def lines(self) -> Lines:
        """The sets A to G."""
        made = [self._asked("A", i, text, context) for i, (text, context) in enumerate(self.distribution, start=1)]
        for i, scene in enumerate(self.scenes, start=1):
            made.append(self._asked("B", i, self.with_concept.replace("{scene}", scene), self._context(scene)))
        made += [self._asked("C", i, text, context) for i, (text, context) in enumerate(self.composition, start=1)]
        for i, scene in enumerate(self.scenes[:STANDARD_SCENES], start=1):
            made += self._ablated(i, scene)
        for i, text in enumerate(self.neighbours, start=1):
            made.append(Prompt(id=f"E{i:02d}", set="E", role="none", group=f"E{i:02d}", text=text, context=text))
        for i, text in enumerate(self.unrelated, start=1):
            made.append(Prompt(id=f"F{i:02d}", set="F", role="drift", group=f"F{i:02d}", text=text, context=text))
        made += [self._asked("G", i, text, context) for i, (text, context) in enumerate(self.again, start=1)]
        return tuple(made)

    def _context(self, scene: str) -> str:
        return self.without.replace("{scene}", scene)

    def _asked(self, set: str, i: int, text: str, context: str) -> Prompt:
        id = f"{set}{i:02d}"
        text = text.replace("{concept}", self.triggered)
        return Prompt.model_validate({"id": id, "set": set, "group": id, "text": text, "context": context})

    def _ablated(self, i: int, scene: str) -> Lines:
        """A scene of B in its group, with plain words for the concept, with a wrong trigger, and without either."""
        asked = self.with_concept.replace("{scene}", scene)
        texts = {
            "class": asked.replace("{concept}", self.triggered.replace(TRIGGERED, DESCRIBED)),
            "wrong": asked.replace("{concept}", self.triggered.replace("{trigger}", "{wrong}")),
            "none": self.plain.replace("{scene}", scene),
        }
        shared = {"set": "D", "group": f"B{i:02d}", "context": self._context(scene)}
        return tuple(
            Prompt.model_validate({"id": f"D{i:02d}-{role}", "role": role, "text": text, **shared})
            for role, text in texts.items()
        )
