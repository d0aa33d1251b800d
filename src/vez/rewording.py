"""What a caption becomes for one sample: a line and alternatives drawn, parts in another order, some left out.

Each draws from the sample's own seed by a stream of its own (`vez.tape.dice`), so variants of one run are paired and a
run that was cut goes on with the same words.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

from vez.config import Variant
from vez.tape import dice

MOST_WORDINGS = 64
"""Wordings of one caption that are looked at."""
_CHOICE = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\x02", "\x03"  # stand in for braces that are meant as such


def rewords(variant: Variant) -> bool:
    """Whether a variant's captions are worded anew for every sample."""
    return variant.shuffle_caption or variant.tag_dropout > 0 or variant.wildcards


def reworded(caption: str, variant: Variant, *, seed: int) -> str:
    """The caption as one sample is trained with it, in kohya's order: alternatives, then parts moved and left out.

    Each part's fate is drawn for itself, so the same ones are left out with and without another order.
    """
    if variant.wildcards:
        caption = drawn_wording(caption, seed=seed)
    if not variant.shuffle_caption and variant.tag_dropout == 0:
        return caption
    parts = [part.strip() for part in caption.split(",")]
    first, rest = parts[: variant.keep_tokens], parts[variant.keep_tokens :]
    random = dice(seed, "wording")
    stays = random.random(len(rest)) >= variant.tag_dropout
    order = random.permutation(len(rest))
    return ", ".join([*first, *(rest[i] for i in (order if variant.shuffle_caption else range(len(rest))) if stays[i])])


def drawn_wording(caption: str, *, seed: int) -> str:
    """The line and the alternatives that one sample draws."""
    random = dice(seed, "wildcards")
    return _drawn(caption, lambda options: int(random.integers(len(options))))


def first_wording(caption: str) -> str:
    """The caption with the first of its lines and of all alternatives: what a picture is validated with."""
    return _drawn(caption, lambda options: 0)


def wordings(caption: str, *, most: int = MOST_WORDINGS) -> tuple[str, ...]:
    """What samples may draw of the caption, the first wording first.

    Where there are more than ``most`` ways to draw, these: the longest, the shortest, and some in which every
    alternative stands once, up to the ``most``-th of each.
    """
    found: dict[str, None] = {}
    turns: list[int] = []
    for _ in range(most):
        taken: list[tuple[int, int]] = []  # what was chosen, of how many

        def choose(options: Sequence[str], taken: list[tuple[int, int]] = taken, turns: list[int] = turns) -> int:
            taken.append((turns[len(taken)] if len(taken) < len(turns) else 0, len(options)))
            return taken[-1][0]

        found[_drawn(caption, choose)] = None
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return tuple(found)
        turns = [chosen for chosen, _ in taken]
        turns[-1] += 1
    few = [first_wording(caption), _drawn(caption, partial(_place, max)), _drawn(caption, partial(_place, min))]
    few += [_drawn(caption, partial(_turn, turn)) for turn in range(1, most)]
    return tuple(dict.fromkeys(few))[:most]


def _place(of: Callable[..., str], options: Sequence[str]) -> int:
    return options.index(of(options, key=len))


def _turn(turn: int, options: Sequence[str]) -> int:
    return turn % len(options)


def _drawn(caption: str, choose: Callable[[Sequence[str]], int]) -> str:
    """One line of the caption; then of each ``{a|b|c}`` one, the innermost first. ``{{`` and ``}}`` are braces."""
    lines = caption.split("\n")
    text = lines[choose(lines)].replace("{{", _OPEN).replace("}}", _CLOSE)

    def one(found: re.Match[str]) -> str:
        options = found[1].split("|")
        return options[choose(options)]

    while _CHOICE.search(text):  # as many rounds as braces stand in braces
        text = _CHOICE.sub(one, text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def may_lose(caption: str, variant: Variant, trigger: str) -> bool:
    """Whether a sample of this caption may be trained without the trigger that stands in it."""
    if variant.wildcards:
        drawn = variant.model_copy(update={"wildcards": False})
        return any(may_lose(text, drawn, trigger) for text in wordings(caption))
    if variant.tag_dropout == 0 or trigger.lower() not in caption.lower():
        return False
    kept = caption.split(",")[: variant.keep_tokens]
    return not any(trigger.lower() in part.lower() for part in kept)


def may_move(caption: str, variant: Variant, trigger: str) -> bool:
    """Whether the trigger at a caption's beginning may come to stand elsewhere in it."""
    if variant.wildcards:
        drawn = variant.model_copy(update={"wildcards": False})
        return any(may_move(text, drawn, trigger) for text in wordings(caption))
    first = caption.split(",")[0]
    return variant.shuffle_caption and variant.keep_tokens == 0 and trigger.lower() in first.lower() and "," in caption
