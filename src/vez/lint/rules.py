"""The rules as data: what each check's finding is worth, why it matters, and what to do about it."""

from dataclasses import dataclass
from typing import Final

from vez.images.findings import Finding, Level
from vez.images.wording import visible

SHARE: Final = 0.5
"""A background, framing, pose or author in more than this share of the pictures is one too many."""
FEW: Final = 5
"""Below this many pictures a share says nothing."""
SOURCES: Final = 12
"""Fewer sources than this are few (docs: evidence on counts)."""
_SHOWN: Final = 160


@dataclass(frozen=True)
class Rule:
    """One check. ``fix`` may hold {names} that the finding fills in."""

    level: Level
    why: str
    fix: str


RULES: Final[dict[str, Rule]] = {
    "caption-missing": Rule("error", "a picture without words teaches its subject to every prompt", "write {file}"),
    "caption-long": Rule(
        "error",
        "the text encoder reads 75 tokens; the words after them are lost, in training and in every prompt like it",
        "shorten the caption; lost now: {lost}",
    ),
    "caption-loop": Rule(
        "warning", "a captioner that repeats itself has lost its way, and the rest is often wrong too", "rewrite it"
    ),
    "caption-alike": Rule(
        "warning",
        "captions that say the same of different pictures make the LoRA learn pictures by heart",
        "say what sets each of these pictures apart",
    ),
    "caption-misfit": Rule(
        "warning",
        "CLIP finds that captions of other pictures fit this one better, so its own may say what is not there",
        "look at the picture and correct the caption; CLIP finds this fits better: {better}",
    ),
    "trigger-missing": Rule(
        "error",
        "without the trigger word the picture teaches the concept under other words",
        "add {trigger!r} to the caption{near}",
    ),
    "trigger-twice": Rule(
        "error",
        "the trigger word belongs once before the caption and once in it; more of it takes the place of other words "
        "and is not how it will be asked for",
        "leave out the repetitions",
    ),
    "trigger-cut": Rule(
        "error",
        "the text encoder never reads this trigger word: it stands beyond the 75th token",
        "put the trigger word first, or shorten what stands before it",
    ),
    "trigger-known": Rule(
        "warning",
        "the base draws something for these words already; where that is not the kind of thing the trigger stands "
        "for, training has to undo it first",
        "draw a few pictures of the trigger with the base alone; where they show something, make up another word",
    ),
    "trigger-ascii": Rule(
        "error",
        "letters beyond ASCII are cut into bytes, look alike without being the same, and not every program passes "
        "them on unchanged",
        "spell the trigger with a to z",
    ),
    "trigger-pieces": Rule("info", "the text encoder reads the trigger as these tokens", "nothing to do"),
    "noun-missing": Rule(
        "warning",
        "without a class noun beside it the trigger has nothing to build on: DreamBooth's likeness fell from .74 to "
        ".30 without one (Ruiz et al. 2023, table 4)",
        "say {noun!r} beside the trigger, in the captions or by a rule in vez.toml",
    ),
    "fused": Rule(
        "warning",
        "words that always stand with the trigger are learned with it: they will come when the trigger is called and "
        "cannot be asked away",
        "two causes: if it belongs to the concept, leave the word out (the trigger then holds it) or waive this; if "
        "it only happens to be in these pictures, add pictures without it",
    ),
    "unnamed": Rule(
        "warning",
        "what is on nearly all pictures and in no caption is learned as part of the trigger",
        "name it in the captions where it is seen, or add pictures without it",
    ),
    "one-background": Rule(
        "warning",
        "a background that most pictures share is learned with the concept and comes back in other scenes",
        "add pictures of other places, and name the place in every caption",
    ),
    "one-framing": Rule(
        "warning",
        "what is only seen from one distance is only drawn from that distance",
        'add other framings, or take crops of these: crops = ["full", "upper", "lower"]',
    ),
    "one-pose": Rule(
        "warning", "a pose that most pictures share is learned with the concept", "add pictures of other poses"
    ),
    "one-author": Rule(
        "warning",
        "one person's pictures share a camera, a light and a taste, which are learned with the concept",
        "add pictures by others",
    ),
    "few-sources": Rule(
        "warning", "so few sources are learned by heart before the concept is", "add pictures from other sources"
    ),
    "shared-source": Rule(
        "error",
        "a held-out picture that was in effect trained on rewards memory, so losses and likeness flatter the LoRA",
        "build again, or exclude one of the two",
    ),
    "licence-missing": Rule(
        "error",
        "the project is public, and a picture whose author and licence nobody knows cannot be passed on",
        "add author and licence to provenance.jsonl, or exclude the picture",
    ),
    "no-derivatives": Rule(
        "warning",
        "its licence allows no derivatives, and a crop is one; whether a LoRA is, courts have not settled",
        "ask the author, or exclude the picture",
    ),
    "lone-bucket": Rule(
        "warning",
        "pictures of one shape are trained together; alone in its shape, this one makes a batch of one each time",
        "crop it to a shape that others have, or exclude it",
    ),
    "face": Rule(
        "warning",
        "an identifiable person is on it, a LoRA can draw them again, and no consent is on record",
        "write into provenance.jsonl what the use rests on (consent), crop the face away, or exclude the picture",
    ),
    "length": Rule("info", "how often a run sees the pictures", "nothing to do"),
}


def finding(
    check: str,
    file: str = "*",
    value: str | float = "",
    threshold: str | float = "",
    *,
    other: str = "",
    level: Level | None = None,
    why: str = "",
    **words: str,
) -> Finding:
    """The finding of a check: level, why and fix come from `RULES`, ``words`` fill in the fix.

    What came from captions and records is cleaned of control characters and shortened: it ends up on terminals.
    """
    rule = RULES[check]
    clean = {name: shown(word) for name, word in words.items()}
    return Finding(
        file=file,
        check=check,
        value=shown(value) if isinstance(value, str) else value,
        threshold=threshold,
        why=shown(why, most=400) or rule.why,
        fix=rule.fix.format(file=shown(file), **clean),
        other=other,
        level=level or rule.level,
    )


def shown(text: str, *, most: int = _SHOWN) -> str:
    """The text in one line of at most ``most`` characters that a terminal can be given."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
