"""Does a picture show what was asked? CLIPscore (Hessel et al. 2021, arXiv 2104.08718) under several texts.

Which text is scored decides what the number means, since CLIP does not know the made-up trigger word: T0 the prompt as
it was drawn, T1 with the describing words instead, T2 without the concept, T3 with look-alikes in its place.
"""

import re
from collections.abc import Callable
from typing import Final

import numpy as np

from vez.config import Project
from vez.metrics.material import Drawn, Material, Measure, Metric, of_set, scenes, table, unrelated
from vez.metrics.rules import WEIGHT
from vez.metrics.summary import Values

PREFIX: Final = "A photo depicts "
"""What CLIPscore puts before every text (jmhessel/clipscore)."""

Words = Callable[[Drawn, Project], str]
"""A picture's text to score; empty: none."""


def describing(text: str, project: Project) -> str:
    """T1: a prompt with the trigger, and the noun beside it, replaced by the words that describe the concept."""
    return _with(text, project, project.describes)


def contrasts(text: str, project: Project) -> tuple[str, ...]:
    """T3: the prompt with each look-alike in the concept's place; none where it does not name the concept."""
    told = describing(text, project)
    found = (_with(text, project, other) for other in project.lookalikes)
    return tuple(other for other in found if other != told)


def texts_of(drawn: tuple[Drawn, ...], project: Project) -> list[str]:
    """Every text that some metric scores, each once."""
    said = [d.text for d in drawn] + [d.context for d in drawn if d.context]
    said += [describing(d.text, project) for d in drawn]
    said += [other for d in drawn if d.role == "trigger" for other in contrasts(d.text, project)]
    return list(dict.fromkeys([*said, *trigger_texts(project)]))


def trigger_texts(project: Project) -> tuple[str, str]:
    """The same plain text with the trigger and with the describing words."""
    return f"a photo of {project.trigger} {project.noun}", f"a photo of {project.describes}"


def trigger_cost(m: Material, real: np.ndarray) -> float | None:
    """CLIPscore with the trigger minus with the describing words on real pictures (R, D): the word's own price."""
    plain, described = (m.texts[text] for text in trigger_texts(m.project))
    cost = WEIGHT * (np.maximum(real @ plain, 0) - np.maximum(real @ described, 0))
    return float(cost.mean()) if len(cost) else None


def _with(text: str, project: Project, instead: str) -> str:
    t, n, d = (re.escape(word) for word in (project.trigger, project.noun, project.describes))
    # The longest first, in one pass: the description usually holds the noun, and must not be described again.
    pattern = rf"(?<!\w)(?:{t}\s+(?:{d}|{n})|{d}|{t}|{n})(?!\w)"
    return re.sub(pattern, lambda _: instead, text, flags=re.IGNORECASE)


def _score(words: Words, chosen: Callable[[Material], list[int]]) -> Measure:
    """CLIPscore of the pictures chosen under the words that ``words`` makes of a prompt."""

    def measure(m: Material) -> Values:
        said = [(i, words(m.drawn[i], m.project)) for i in chosen(m)]
        rows = [(i, float(m.clip.images[i] @ m.texts[text])) for i, text in said if text]
        return table(m, [(i, WEIGHT * max(cosine, 0.0)) for i, cosine in rows])

    return measure


def _margins(m: Material) -> list[tuple[int, float, np.ndarray]]:
    """(picture, its cosine to the describing text, those to the contrasts)."""
    found = []
    for i in scenes(m):
        others = contrasts(m.drawn[i].text, m.project)
        if others:
            own = float(m.clip.images[i] @ m.texts[describing(m.drawn[i].text, m.project)])
            found.append((i, own, np.array([m.clip.images[i] @ m.texts[text] for text in others])))
    return found


def _margin(m: Material) -> Values:
    return table(m, [(i, WEIGHT * (own - float(others.mean()))) for i, own, others in _margins(m)])


def _told_apart(m: Material) -> Values:
    return table(m, [(i, float(own > others.max())) for i, own, others in _margins(m)])


def _literal(d: Drawn, _: Project) -> str:
    return d.text


def _described(d: Drawn, project: Project) -> str:
    return describing(d.text, project)


def _context(d: Drawn, _: Project) -> str:
    return d.context


_OF = "over the scenes with the trigger (set B)"
_NEEDS = "needs prompts of the role trigger"
_NEEDS_LOOKALIKES = "needs lookalikes in [project] of vez.toml: what the concept could be mistaken for, in words"

TEXT: Final[tuple[Metric, ...]] = (
    Metric(
        "T0",
        "text",
        "CLIPscore of the prompt as it was drawn, trigger word included: 2.5 · max(cos(picture, “A photo depicts ” + "
        f"prompt), 0), {_OF}. CLIP does not know the trigger word: for comparison with the reference study only.",
        _NEEDS,
        _score(_literal, scenes),
    ),
    Metric(
        "T1",
        "text",
        f"CLIPscore of the prompt with the trigger word and its noun replaced by the describing words, {_OF}: does "
        "the picture show what was asked, in words that CLIP knows?",
        _NEEDS,
        _score(_described, scenes),
    ),
    Metric(
        "T2",
        "text",
        f"CLIPscore of the prompt's context alone, the concept left out, {_OF}: is the rest of the prompt still "
        "followed?",
        f"{_NEEDS} that have a context",
        _score(_context, scenes),
    ),
    Metric(
        "T3",
        "text",
        f"CLIPscore of the describing words (T1) minus the mean of the same prompt's with each look-alike, {_OF}. What "
        "a picture scores with any text falls out of it, so 0 means something: no more the concept than its "
        "look-alikes.",
        _NEEDS_LOOKALIKES,
        _margin,
    ),
    Metric(
        "told_apart",
        "text",
        f"Share of pictures that CLIP takes for the describing words rather than for any look-alike, {_OF}. Guessing "
        "gives 1 in (look-alikes + 1).",
        _NEEDS_LOOKALIKES,
        _told_apart,
    ),
    Metric(
        "T2_composition",
        "text",
        "CLIPscore of the context alone over the compositions (set C: other people, other materials, from behind).",
        "needs prompts of the set C",
        _score(_context, lambda m: of_set(m, "C")),
    ),
    Metric(
        "T2_own",
        "text",
        "CLIPscore of the context alone over your own prompts beside the suite's (set user).",
        "needs prompts of your own with the trigger and a context, beside the suite's",
        _score(_context, lambda m: of_set(m, "user")),
    ),
    Metric(
        "unrelated",
        "text",
        "CLIPscore of unrelated prompts (role drift): is what the LoRA was not taught still drawn as asked?",
        "needs prompts of the role drift",
        _score(_literal, unrelated),
    ),
)
