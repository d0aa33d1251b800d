"""What a caption becomes for one sample: a line and alternatives drawn, parts in another order, some left out.

Each draws from the sample's own seed by a stream of its own (`vez.tape.dice`), so variants of one run are paired and a
run that was cut goes on with the same words.
"""

import re
from collections.abc import Callable

from vez.config import Variant
from vez.tape import dice

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
        random = dice(seed, "wildcards")
        caption = _drawn(caption, lambda count: int(random.integers(count)))
    if not variant.shuffle_caption and variant.tag_dropout == 0:
        return caption
    parts = [part.strip() for part in caption.split(",")]
    first, rest = parts[: variant.keep_tokens], parts[variant.keep_tokens :]
    random = dice(seed, "wording")
    stays = random.random(len(rest)) >= variant.tag_dropout
    order = random.permutation(len(rest))
    return ", ".join([*first, *(rest[i] for i in (order if variant.shuffle_caption else range(len(rest))) if stays[i])])


def first_wording(caption: str) -> str:
    """The caption with the first of its lines and of all alternatives: what a picture is validated with."""
    return _drawn(caption, lambda count: 0)


def _drawn(caption: str, choose: Callable[[int], int]) -> str:
    """One line of the caption; then of each ``{a|b|c}`` one, the innermost first. ``{{`` and ``}}`` are braces."""
    lines = caption.split("\n")
    text = lines[choose(len(lines))].replace("{{", _OPEN).replace("}}", _CLOSE)

    def one(found: re.Match[str]) -> str:
        options = found[1].split("|")
        return options[choose(len(options))]

    while _CHOICE.search(text):  # as many rounds as braces stand in braces
        text = _CHOICE.sub(one, text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def may_lose(caption: str, variant: Variant, trigger: str) -> bool:
    """Whether a sample of this caption may be trained without the trigger that stands in it."""
    if variant.tag_dropout == 0 or trigger.lower() not in caption.lower():
        return False
    kept = caption.split(",")[: variant.keep_tokens]
    return not any(trigger.lower() in part.lower() for part in kept)


def may_move(caption: str, variant: Variant, trigger: str) -> bool:
    """Whether the trigger at a caption's beginning may come to stand elsewhere in it."""
    first = caption.split(",")[0]
    return variant.shuffle_caption and variant.keep_tokens == 0 and trigger.lower() in first.lower() and "," in caption
