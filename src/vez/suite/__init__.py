"""What is drawn to judge a LoRA: suites of prompts as data, the profiles that take a part of them, and their names.

A suite's prompts stand in sets: A in-distribution, B recontextualisation (the primary one), C composition, D trigger
ablation (B's scenes with plain words, a wrong trigger, or neither), E class drift, F unrelated drift, G confirmation.
A prompt of one's own that is added to a suite is of the set "user". Knows no model; `{wrong}`, a wrong trigger of as
many tokens as the right one, is filled in where a tokenizer is at hand (`vez.draw`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vez.config import Project, Prompt, Sampling, Study
from vez.errors import ConfigError
from vez.store import canonical_json
from vez.suite import tiny, v1
from vez.suite.wording import Lines

SUITES: Final[Mapping[str, Mapping[str, Lines]]] = {v1.VERSION: v1.LINES, tiny.VERSION: tiny.LINES}
"""Suite → kind of concept → its prompts."""

UNSAID: Final = "object"
"""The kind whose words fit where a project names none."""

CONFIRM: Final = "confirm"
CONFIRM_SEEDS: Final = 100
"""First noise of a confirmation: no other profile reaches it."""

_OWN_SETS: Final = {"trigger": "B", "class": "D", "wrong": "D", "none": "D", "drift": "F"}
"""The set of a prompt that names none, in a suite of one's own, by its role."""

Share = tuple[int, int]
"""How many of a set's prompts, the first ones, and how many noises each."""

PROFILES: Final[Mapping[str, Mapping[tuple[str, str], Share]]] = {
    "probe": {},
    "quick": {("B", "trigger"): (8, 2)},
    "standard": {
        ("A", "trigger"): (6, 4),
        ("B", "trigger"): (12, 4),
        ("C", "trigger"): (8, 4),
        ("D", "class"): (12, 2),
        ("D", "wrong"): (12, 2),
        ("E", "none"): (12, 2),
        ("F", "drift"): (12, 2),
    },
    "thorough": {
        ("A", "trigger"): (6, 8),
        ("B", "trigger"): (24, 4),
        ("C", "trigger"): (8, 8),
        ("D", "class"): (12, 4),
        ("D", "wrong"): (12, 2),
        ("D", "none"): (12, 2),
        ("E", "none"): (12, 4),
        ("F", "drift"): (12, 4),
    },
    CONFIRM: {("G", "trigger"): (12, 4)},
}
"""Profile → (set, role) → its share. Of vez's suites: 0, 16, 200, 400 and 48 pictures for each arm.

quick has eight prompts since a sign-flip test over n of them never gives a p below 2^(1 − n): after Holm's adjustment
six prompts could call one LoRA better, eight can call six, twelve a hundred.
"""


@dataclass(frozen=True)
class Asked:
    """What is drawn of a study: prompts with their sets and ``seeds``, and how.

    ``about`` names the suite for the artifact and the report: {suite, sha256, kind, profile}.
    """

    prompts: tuple[Prompt, ...]
    sampling: Sampling
    about: dict[str, Any]

    @property
    def images(self) -> int:
        """Pictures for each arm."""
        return sum(prompt.seeds or self.sampling.seeds for prompt in self.prompts)


def sha256_of(suite: str) -> str:
    """The hash of a suite: all its prompts, placeholders and all, of every kind. Changes if a letter does."""
    lines = {kind: [prompt.model_dump() for prompt in prompts] for kind, prompts in SUITES[suite].items()}
    return hashlib.sha256(canonical_json(lines).encode()).hexdigest()


def asked(study: Study, project: Project, *, profile: str | None = None) -> Asked:
    """The prompts that a study draws under its profile, or under another.

    Of vez's suite, what the profile takes (absent: "standard"), then the study's own prompts, in the set "user" and
    with `sampling.seeds` noises each (none of them in the profiles probe and confirm). Of a suite of the study's own,
    all prompts, or what a profile takes of them by their sets.
    Raises ConfigError for prompts that bear one id, and where a profile finds nothing in the study's own suite.
    """
    chosen = profile or study.sampling.profile
    sampling = study.sampling
    if chosen == CONFIRM:
        sampling = sampling.model_copy(update={"first_seed": sampling.first_seed + CONFIRM_SEEDS})
    if study.suite == "own":
        own = tuple(_in_set(prompt, _OWN_SETS[prompt.role]) for prompt in study.prompts)
        prompts = own if chosen is None else _taken(own, chosen)
        if not prompts and chosen != "probe":
            wanted = sorted({set for set, _ in PROFILES[str(chosen)]})
            raise ConfigError(
                f"the profile {chosen!r} draws prompts of the sets {', '.join(wanted)}, and the study's own suite has "
                "none of them; give its prompts their set, or leave the profile out"
            )
        about = {"suite": "own", "sha256": None, "kind": None, "profile": chosen}
        return Asked(prompts, sampling, about)
    chosen = chosen or "standard"
    name = study.suite or (tiny.VERSION if project.base == tiny.VERSION else v1.VERSION)
    of_kind = SUITES[name]
    kind = next(k for k in (project.kind, UNSAID, *of_kind) if k in of_kind)
    prompts = _taken(of_kind[str(kind)], chosen)
    if chosen not in ("probe", CONFIRM):
        prompts += tuple(_in_set(prompt, "user") for prompt in study.prompts)
    ids = [prompt.id for prompt in prompts]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise ConfigError(f"the id {twice[0]!r} is that of a prompt of vez's suite; give yours another")
    about = {"suite": name, "sha256": sha256_of(name), "kind": kind, "profile": chosen}
    return Asked(prompts, sampling, about)


def class_texts(study: Study, project: Project) -> tuple[str, ...]:
    """What pictures of the class show, whatever the profile: the suite's set E, its neighbours of the concept.

    Of a suite of one's own without that set, its prompts with the describing words; without those, the noun.
    """
    prompts = tuple(_in_set(prompt, _OWN_SETS[prompt.role]) for prompt in study.prompts)
    if study.suite != "own":
        prompts = asked(study, project, profile="standard").prompts
    found = [prompt for prompt in prompts if prompt.set == "E"] or [p for p in prompts if p.role == "class"]
    return tuple(project.expand(prompt.text) for prompt in found) or (f"a photo of a {project.noun}",)


def _in_set(prompt: Prompt, set: str) -> Prompt:
    return prompt if prompt.set is not None else prompt.model_copy(update={"set": set})


def _taken(lines: Lines, profile: str) -> Lines:
    """The profile's share of each set, each prompt with its number of noises unless it names its own."""
    found: dict[tuple[str, str], int] = {}
    taken = []
    for prompt in lines:
        place = (str(prompt.set), prompt.role)
        most, seeds = PROFILES[profile].get(place, (0, 0))
        found[place] = found.get(place, 0) + 1
        if found[place] <= most:
            taken.append(prompt.model_copy(update={"seeds": prompt.seeds or seeds}))
    return tuple(taken)
