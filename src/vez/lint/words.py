"""What can be said of captions by reading them: their length in tokens, the trigger, repetitions, fused words.

Pure functions from captions to findings; see `vez.lint.rules` for what each means.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from typing import Final

from vez.config import Project
from vez.images.findings import Finding
from vez.lint.alike import clusters, near_copies
from vez.lint.rules import FEW, finding
from vez.lint.tokens import Tokens
from vez.nets.tokens import well_formed

ALIKE: Final = 0.9
"""Jaccard index of two captions' words above which they are near copies."""
FUSED: Final = 0.8
"""A word in more than this share of the captions is fused with the trigger."""
_LONGEST_PHRASE: Final = 4
_WORD: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
# Doubled on purpose in ordinary English; digits repeat too.
_DOUBLED: Final = frozenset({"very", "so", "really", "many", "far", "ha", "bye", "knock", "had", "that", "yo", "cha"})
# Words that say how others belong together, or that there is a picture at all; they cannot be learned as things.
_STOP: Final = (
    "a an the this that these those some of in on at by to from with without and or as is are was were be being been "
    "it its his her their he she they there who which while wearing wears worn dressed has have having for into over "
    "under near next up photo photograph picture image"
)
STOP: Final = frozenset(_STOP.split())


@dataclass(frozen=True)
class Caption:
    """A caption and whose it is. ``source`` is the same number for pictures of one source.

    Where samples draw their wording, ``wordings`` are all that they may draw, and ``text`` is the first.
    """

    file: str
    text: str
    source: int
    trained: bool = True
    """It stands in the training split."""
    crop: str = "full"
    wordings: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What may be trained with it."""
        return self.wordings or (self.text,)


def trigger_pattern(trigger: str) -> re.Pattern[str]:
    """The trigger as whole words, whatever their case and the white space between them."""
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, trigger.split())) + r"(?!\w)", re.IGNORECASE)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return [match[0].lower() for match in _WORD.finditer(text)]


def plain(text: str, project: Project) -> str:
    """The caption as somebody would say it who does not know the trigger: no prefix, the noun in its place."""
    pattern = trigger_pattern(project.trigger)
    rest = re.sub(rf"^\s*{pattern.pattern}\s*(?:,\s*|$)", "", text, flags=re.IGNORECASE)
    with_noun = rf"{pattern.pattern}(?:\s+{re.escape(project.noun)}(?!\w))?"
    return well_formed(" ".join(re.sub(with_noun, lambda _: project.noun, rest, flags=re.IGNORECASE).split()))


def read(captions: Sequence[Caption], project: Project, tokens: Tokens, *, role: str) -> list[Finding]:
    """Everything that reading finds, about single captions and about all of them together."""
    written = [caption for caption in captions if any(text.strip() for text in caption.texts)]
    found = [_missing(caption) for caption in captions if not any(text.strip() for text in caption.texts)]
    pattern = trigger_pattern(project.trigger)
    spans = iter(tokens.spans([text for caption in written for text in caption.texts]))
    for caption in written:
        each = [(replace(caption, text=text), next(spans)) for text in caption.texts]
        found += _worst([list(_alone(one, places, project, pattern, role=role)) for one, places in each])
    found += _alike(written, pattern)
    found += _noun(written, project, tokens)
    if role != "class":
        found += [*trigger_itself(project, tokens), *fused(written, project)]
    return found


def _alone(
    caption: Caption, places: Sequence[tuple[int, int]], project: Project, pattern: re.Pattern[str], *, role: str
) -> Iterator[Finding]:
    """What is found in the caption's text by itself."""
    yield from _length(caption, places, project.tokens)
    yield from _loop(caption, pattern)
    if role == "class":
        yield from _trigger_in_class(caption, project, pattern)
    else:
        yield from _trigger(caption, project, pattern, places)


def _worst(each: Sequence[Sequence[Finding]]) -> Iterator[Finding]:
    """Of what is found in each wording of a caption, one finding of each check, which says how many wordings have it;
    of those that are too long, about the longest."""
    if len(each) == 1:
        yield from each[0]
        return
    checks: dict[str, list[Finding]] = defaultdict(list)
    for found in each:
        for one in found:
            checks[one.check].append(one)
    for check, of in checks.items():
        first = max(of, key=lambda one: int(str(one.value).split()[0])) if check == "caption-long" else of[0]
        yield replace(first, value=f"{first.value} (in {len(of)} of {len(each)} wordings)")


def _missing(caption: Caption) -> Finding:
    what = f"{caption.crop} crop" if caption.crop != "full" else ""
    stem = caption.file.rpartition(".")[0] or caption.file
    file = f"{stem}.txt" if caption.crop == "full" else f"{stem}.{caption.crop}.txt"
    # the fix names the file of captions, the finding the picture
    return _about(finding("caption-missing", file, what or "empty"), caption)


def _about(found: Finding, caption: Caption) -> Finding:
    return Finding(**{**vars(found), "file": caption.file})


def _said(caption: Caption) -> str:
    """The caption as a value: which crop's it is, unless there is only the one."""
    return caption.text if caption.crop == "full" else f"{caption.crop} crop: {caption.text}"


def _length(caption: Caption, places: Sequence[tuple[int, int]], usable: int) -> Iterator[Finding]:
    if len(places) <= usable:
        return
    cut = places[usable][0]
    while 0 < cut < len(caption.text) and caption.text[cut - 1].isalnum() and caption.text[cut].isalnum():
        cut -= 1  # a word that is cut inside is lost as a word
    value = f"{len(places)} tokens" + ("" if caption.crop == "full" else f" ({caption.crop} crop)")
    yield finding("caption-long", caption.file, value, f"{usable} tokens", lost=f"“{caption.text[cut:].strip()}”")


def _loop(caption: Caption, trigger: re.Pattern[str]) -> Iterator[Finding]:
    """A word twice in a row, or two to six words twice in a row; punctuation and the trigger end a row."""
    for part in re.split(r"[^\w\s'’-]", trigger.sub(",", caption.text)):
        words = words_of(part)
        for length in range(1, 7):
            for i in range(len(words) - 2 * length + 1):
                phrase = words[i : i + length]
                if phrase == words[i + length : i + 2 * length] and not _may_double(phrase):
                    yield finding("caption-loop", caption.file, f"“{' '.join(phrase)}” again in: {_said(caption)}")
                    return


def _may_double(phrase: Sequence[str]) -> bool:
    return all(word in _DOUBLED or word.isdigit() for word in phrase)


def _trigger(
    caption: Caption, project: Project, pattern: re.Pattern[str], places: Sequence[tuple[int, int]]
) -> Iterator[Finding]:
    """Missing; more often than once before the caption and once in it, or doubled; never read.

    A trigger with a comma after it at the very beginning is the prefix that vez itself writes. The captions of the
    reference study name the trigger twice by design: "nosnjaoutfit, a girl wearing traditional nosnjaoutfit".
    """
    hits = list(pattern.finditer(caption.text))
    if not hits:
        near = get_close_matches(project.trigger.lower(), words_of(caption.text), n=1, cutoff=0.75)
        hint = f" (“{near[0]}” is another word to the text encoder)" if near else ""
        yield finding("trigger-missing", caption.file, _said(caption), trigger=project.trigger, near=hint)
        return
    doubled = any(re.fullmatch(r"[\s,]*", caption.text[a.end() : b.start()]) for a, b in pairwise(hits))
    prefix = re.match(r"\s*$", caption.text[: hits[0].start()]) and re.match(r"\s*,", caption.text[hits[0].end() :])
    if doubled or len(hits) - bool(prefix) > 1:
        how = "in a row: " if doubled else ""
        most = "once before the caption and once in it"
        yield finding("trigger-twice", caption.file, f"{len(hits)} times, {how}{_said(caption)}", most)
    before = sum(start < hits[0].end() for start, _ in places)
    if before > project.tokens:
        yield finding("trigger-cut", caption.file, f"ends at token {before}", project.tokens)


def _trigger_in_class(caption: Caption, project: Project, pattern: re.Pattern[str]) -> Iterator[Finding]:
    if pattern.search(caption.text):
        why = (
            f"this dataset shows {project.noun} in general; with the trigger word in its captions it teaches that the "
            "trigger means nothing in particular"
        )
        yield finding("trigger-twice", caption.file, _said(caption), "not at all in class pictures", why=why)


def _alike(captions: Sequence[Caption], trigger: re.Pattern[str]) -> Iterator[Finding]:
    """One finding for each cluster of near copies that spans more than one source."""
    sets = [frozenset(words_of(trigger.sub(" ", caption.text))) for caption in captions]
    members: dict[int, list[int]] = defaultdict(list)
    for i, cluster in enumerate(clusters(len(sets), near_copies(sets, above=ALIKE))):
        members[cluster].append(i)
    for of in members.values():
        if len({captions[i].source for i in of}) < 2:
            continue
        first = captions[of[0]]
        other = next(captions[i] for i in of if captions[i].source != first.source)
        value = f"{len(of)} captions like: {first.text}"
        yield finding("caption-alike", first.file, value, f"Jaccard {ALIKE:g}", other=other.file)


def _noun(captions: Sequence[Caption], project: Project, tokens: Tokens) -> list[Finding]:
    """Captions without the class noun; one finding for all where most of them lack it.

    What names the kind of thing: the noun, its last word ("costume" of "folk costume"), or a piece of the trigger that
    is a word by itself and that noun or description hold too ("dress" in a trigger zwxdress).
    """
    kinds = words_of(project.noun)[-1:]
    pieces = {piece.lower() for piece in tokens.pieces(project.trigger)}
    if pieces & {*words_of(project.noun), *words_of(project.describes)}:
        return []
    lacking = [c for c in captions if not all(_names(text, kinds) for text in c.texts)]
    if not kinds or not lacking:
        return []
    if 2 * len(lacking) > len(captions) and len(lacking) > 1:
        return [finding("noun-missing", value=f"{len(lacking)} of {len(captions)} captions", noun=project.noun)]
    return [finding("noun-missing", c.file, _said(c), noun=project.noun) for c in lacking]


def _names(text: str, kinds: Sequence[str]) -> bool:
    return any(word in (kind, f"{kind}s", f"{kind}es") for word in words_of(text) for kind in kinds)


def trigger_itself(project: Project, tokens: Tokens) -> list[Finding]:
    """What the trigger is to the text encoder: its pieces, and whether they mean something already.

    An error where the whole trigger is one common word of the vocabulary, or the noun itself; a warning where it is a
    rare word of it, or holds a word of three letters or more.
    """
    trigger, found = project.trigger, []
    if not trigger.isascii():
        found.append(finding("trigger-ascii", value=trigger))
    pieces = tokens.pieces(trigger)
    words = [piece for piece in pieces if len(piece) > 1 and tokens.is_word(piece)]
    value = "·".join(pieces) + f" ({len(pieces)} token{'s' if len(pieces) != 1 else ''})"
    value += f"; words by themselves: {', '.join(words)}" if words else "; none of them a word by itself"
    found.insert(0, finding("trigger-pieces", value=value))
    whole = trigger.lower() in {project.noun.lower(), project.describes.lower()}
    if whole or (len(pieces) == 1 and tokens.is_word(trigger) and not tokens.is_rare(trigger)):
        why = "the base knows this word: it will mix what it knows with the concept, and lose the word for itself"
        found.append(finding("trigger-known", value=trigger, threshold="a made-up word", level="error", why=why))
    elif telling := [word for word in words if len(word) > 2]:
        found.append(finding("trigger-known", value=", ".join(telling), threshold="no words in it"))
    return found


def fused(captions: Iterable[Caption], project: Project) -> list[Finding]:
    """Words and phrases in more than `FUSED` of the captions trained on, the longest of those that come together.

    Noun, description and trigger are meant to be there; `STOP` words alone are nothing. Says how often the phrase comes
    with the trigger and without it: P(phrase | trigger).
    """
    texts = [caption.texts for caption in captions if caption.trained]
    if len(texts) < FEW:
        return []
    pattern = trigger_pattern(project.trigger)
    exempt = STOP.union(words_of(project.noun), words_of(project.describes))
    held, alone = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    with_trigger = 0
    for of in texts:
        has = all(pattern.search(text) for text in of)
        with_trigger += has
        # what is only in some wordings is what varies
        (held if has else alone).update(set.intersection(*(_phrases(text, pattern, exempt) for text in of)))
    most = {phrase: n for phrase in held | alone if (n := held[phrase] + alone[phrase]) > FUSED * len(texts)}
    found = []
    for phrase, n in sorted(most.items(), key=lambda item: (-item[1], item[0])):
        if any(len(other) > len(phrase) and _inside(phrase, other) for other in most):
            continue
        value = f"“{' '.join(phrase)}” in {n} of {len(texts)} captions"
        if with_trigger < len(texts):
            value += f", {held[phrase]} of {with_trigger} with the trigger"
        found.append(finding("fused", value=value, threshold=FUSED))
    return found


def _phrases(text: str, trigger: re.Pattern[str], exempt: frozenset[str]) -> set[tuple[str, ...]]:
    """One to four words in a row, within punctuation, that neither begin nor end with an exempt one."""
    phrases = set()
    for part in re.split(r"[^\w\s'’-]", trigger.sub(",", text)):
        words = words_of(part)
        for i, word in enumerate(words):
            if word in exempt:
                continue
            for j in range(i + 1, min(i + _LONGEST_PHRASE, len(words)) + 1):
                if words[j - 1] not in exempt:
                    phrases.add(tuple(words[i:j]))
    return phrases


def _inside(phrase: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(other[i : i + len(phrase)] == phrase for i in range(len(other) - len(phrase) + 1))
