"""The trigger rule: how what a captioner said becomes the caption that is trained on. Pure text."""

import re
from typing import Final

from vez.config import Dataset, Override, Project

_COMMAS: Final = re.compile(r"\s*,[\s,]*")


def final_caption(machine: str, project: Project, recipe: Dataset, *, file: str = "") -> str:
    """The caption trained on, in one line, made from the captioner's words for the picture ``file``.

    In this order: the rules of the file's override, then the dataset's, each replacing whole words whatever their case;
    the dataset's tags, then the override's, each after a comma unless the caption has its words already; and
    "<trigger>, " in front, unless the caption begins with the trigger already, the dataset's or the file's ``prefix``
    says no, or the pictures are of role "class".
    """
    own = recipe.override.get(file, Override())
    caption = _tidy(machine)
    for rule in (*own.rules, *recipe.rules):
        put = project.expand(rule.replace)
        # a function, so that what is written is meant: a string's backslashes would refer to groups
        caption = _tidy(_words(rule.find).sub(lambda _, put=put: put, caption))  # type: ignore[misc]
    for tag in (*recipe.tags, *own.tags):
        words = _tidy(project.expand(tag))
        if words and not _words(words).search(caption):
            caption = f"{caption}, {words}" if caption else words
    prefix = recipe.prefix if own.prefix is None else own.prefix
    if not prefix or recipe.role == "class" or _words(project.trigger).match(caption):
        return caption
    trigger = _tidy(project.trigger)
    return f"{trigger}, {caption}" if caption else trigger


def _words(phrase: str) -> re.Pattern[str]:
    """Finds the phrase itself, not as a part of longer words, whatever its case and white space."""
    inner = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(rf"(?<!\w){inner}(?!\w)", re.IGNORECASE)


def _tidy(text: str) -> str:
    """Single spaces; of several commas one, with a space after it, and none at the ends. "1,000" stays as it is."""
    spaced = _COMMAS.sub(lambda match: "," if match[0] == "," else ", ", " ".join(text.split()))
    return spaced.strip(" ,")
