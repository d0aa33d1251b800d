"""Which pictures are put side by side, in which order and on which side: the same for the same judge, always.

A plan is made of blocks of twenty votes: sixteen comparisons of two arms over the same prompt and the same noise, two
pairs of one arm with itself (another noise), and two comparisons seen before, mirrored. Three blocks are the sixty
votes of ten minutes. Half of the comparisons are the same for every judge, so that judges can be compared; the other
half are each judge's own, so that several judges see more. Whoever stops early has seen every arm nearly as often as
every other, and a longer plan begins as the shorter one.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

from vez.errors import ConfigError
from vez.judging.material import Cell, Material
from vez.store import canonical_json

Kind = Literal["comparison", "repeat", "same"]
Question = Literal["concept", "text"]

BLOCK: Final = 20
SAME: Final = 2
"""Pairs of one arm with itself in a block."""
REPEATS: Final = 2
"""Comparisons of a block that were seen before, mirrored."""
APART: Final = 8
"""A repeat comes at least this many votes after what it repeats, so that it is not remembered."""
SECONDS: Final = 10
"""What a vote takes (evaluation of ten minutes: sixty votes)."""


@dataclass(frozen=True)
class Pair:
    """Two pictures to choose from. ``of`` is the id of the comparison that a repeat mirrors, "" otherwise."""

    id: str
    kind: Kind
    left: Cell
    right: Cell
    of: str = ""


def votes_in(minutes: float) -> int:
    """How many votes fit into so many minutes, at least one."""
    return max(1, round(minutes * 60 / SECONDS))


def thinness(material: Material, votes: int) -> str:
    """In a sentence, how often a plan of so many votes compares the same two arms."""
    pairings = len(material.arms) * (len(material.arms) - 1) // 2
    each = votes * (BLOCK - SAME - REPEATS) / BLOCK / max(1, pairings)
    often = "less than once" if each < 1 else f"about {each:.0f} times"
    return f"{len(material.arms)} arms make {pairings} pairings; {votes} votes compare each {often}"


def plan(material: Material, *, judge: str, question: Question, votes: int) -> tuple[Pair, ...]:
    """A judge's pairs for one question, in order.

    Fewer than ``votes`` where the samples have no more different comparisons. Where only one noise was drawn, no arm
    can be compared with itself, and comparisons stand in for such pairs.
    Raises ConfigError where there are fewer than two arms.
    """
    if len(material.arms) < 2:
        raise ConfigError(f"only {', '.join(material.arms) or 'nothing'} was drawn; judging compares at least two arms")
    words = [*material.arms, *material.prompts, *(str(seed) for seed in material.seeds)]
    dice = _dice("order", question, judge, *words)
    every = list(_comparisons(material, _dice("shared", question, *words)))
    of_all = every[: -(-len(every) // 2)]
    shared = iter(of_all)
    own = _comparisons(material, _dice("own", question, judge, *words), taken=set(of_all))
    same = _with_itself(material, _dice("same", question, judge, *words))
    sides = Counter[tuple[str, str]]()
    pairs: list[Pair] = []
    for _ in range(-(-votes // BLOCK)):
        pairs += _block(pairs, shared, own, same, sides=sides, dice=dice, words=(judge, question))
    return tuple(pairs[:votes])


def _block(
    before: list[Pair],
    shared: Iterator[tuple[Cell, Cell]],
    own: Iterator[tuple[Cell, Cell]],
    same: Iterator[tuple[Cell, Cell]],
    *,
    sides: Counter[tuple[str, str]],
    dice: random.Random,
    words: tuple[str, str],
) -> list[Pair]:
    """The next votes after ``before``; fewer than a block where the comparisons are used up."""
    repeats = set(dice.sample(range(APART + 2, BLOCK), REPEATS))
    itself = set(dice.sample(sorted(set(range(1, BLOCK)) - repeats), SAME))
    pairs: list[Pair] = []
    for place in range(BLOCK):
        so_far = before + pairs
        pair = None
        if place in repeats:
            pair = _repeat(so_far, dice, words)
        elif place in itself and (cells := next(same, None)) is not None:
            left, right = dice.sample(cells, 2)
            pair = _pair("same", left, right, words)
        if pair is None:
            first, second = (shared, own) if place % 2 == 0 else (own, shared)
            found = next(first, None) or next(second, None)
            if found is None:
                break
            pair = _pair("comparison", *_sided(*found, sides, dice), words)
        pairs.append(pair)
    return pairs


def _comparisons(
    material: Material, dice: random.Random, *, taken: Set[tuple[Cell, Cell]] = frozenset()
) -> Iterator[tuple[Cell, Cell]]:
    """Every comparison once: round after round of all pairings of arms, prompts and noises used evenly."""
    pairings = list(combinations(material.arms, 2))
    scenes = sorted({(cell.prompt, cell.seed) for cell in material.files})
    open_ = {
        (a, b): [
            (prompt, seed)
            for prompt, seed in scenes
            if Cell(a, prompt, seed) in material.files
            and Cell(b, prompt, seed) in material.files
            and (Cell(a, prompt, seed), Cell(b, prompt, seed)) not in taken
        ]
        for a, b in pairings
    }
    prompts, noises, here = Counter[str](), Counter[int](), Counter[tuple[str, str, str]]()
    while any(open_.values()):
        dice.shuffle(pairings)
        for a, b in pairings:
            if not open_[a, b]:
                continue
            dice.shuffle(open_[a, b])
            prompt, seed = min(open_[a, b], key=lambda s: (here[a, b, s[0]], prompts[s[0]], noises[s[1]]))
            open_[a, b].remove((prompt, seed))
            prompts[prompt] += 1
            noises[seed] += 1
            here[a, b, prompt] += 1
            yield Cell(a, prompt, seed), Cell(b, prompt, seed)


def _with_itself(material: Material, dice: random.Random) -> Iterator[tuple[Cell, Cell]]:
    """One arm, one prompt, two noises; arms in turn."""
    of_arm: dict[str, list[tuple[Cell, Cell]]] = {}
    for arm in dice.sample(material.arms, len(material.arms)):
        found = [
            (first, second)
            for first, second in combinations(sorted(cell for cell in material.files if cell.arm == arm), 2)
            if first.prompt == second.prompt
        ]
        of_arm[arm] = dice.sample(found, len(found))
    while any(of_arm.values()):
        for pairs in of_arm.values():
            if pairs:
                yield pairs.pop()


def _sided(a: Cell, b: Cell, sides: Counter[tuple[str, str]], dice: random.Random) -> tuple[Cell, Cell]:
    """Left and right, so that each pairing, and then each arm, has been left as often as right."""
    pairing = sides[a.arm, b.arm] - sides[b.arm, a.arm]
    arms = _lean(a.arm, sides) - _lean(b.arm, sides)
    lean = pairing or arms or dice.choice((-1, 1))
    left, right = (b, a) if lean > 0 else (a, b)
    sides[left.arm, right.arm] += 1
    return left, right


def _lean(arm: str, sides: Counter[tuple[str, str]]) -> int:
    """How much more often an arm was left than right."""
    return sum(n * ((left == arm) - (right == arm)) for (left, right), n in sides.items())


def _repeat(so_far: list[Pair], dice: random.Random, words: tuple[str, str]) -> Pair | None:
    """A comparison seen long enough ago and not yet repeated, mirrored; None where there is none."""
    done = {pair.of for pair in so_far}
    choice = [pair for pair in so_far[: -APART + 1] if pair.kind == "comparison" and pair.id not in done]
    if not choice:
        return None
    of = dice.choice(choice)
    return _pair("repeat", of.right, of.left, words, of=of.id)


def _pair(kind: Kind, left: Cell, right: Cell, words: tuple[str, str], *, of: str = "") -> Pair:
    """A pair with an id that says all of it: who is asked what about which two pictures, and on which sides."""
    told = [*words, kind, left.arm, left.prompt, left.seed, right.arm, right.prompt, right.seed]
    return Pair(hashlib.sha256(canonical_json(told).encode()).hexdigest()[:24], kind, left, right, of)


def _dice(*words: str) -> random.Random:
    """Random numbers that depend on the words alone."""
    return random.Random(hashlib.sha256(canonical_json(["vez-judge-1", *words]).encode()).digest())
