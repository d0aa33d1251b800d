"""The drawn world plays the base, and "LoRAs" that are right but for one planted fault; and it measures them.

For bench/truth_b.py. Each generator is a function of what is asked (`Ask`), and draws from the noise that is asked for,
so that two of them differ in nothing but the fault.
"""

import hashlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.config import Project, Prompt
from vez.demo.world.garments import COLOURS, COSTUME, GARMENTS, WINE
from vez.demo.world.people import HAIRS
from vez.demo.world.places import INDOORS
from vez.demo.world.scene import WEATHERS, Scene, draw, random_scene
from vez.metrics import embed
from vez.metrics.definitions import measure
from vez.metrics.gather import gather
from vez.metrics.material import Drawn
from vez.metrics.summary import Values
from vez.suite import PROFILES
from vez.suite.tiny import LINES

STANDARD = PROFILES["standard"]
DOSES = (0, 25, 50, 75, 100)
PROJECT = Project(
    base="tiny",
    trigger="nosnjaoutfit",
    noun="folk costume",
    describes="traditional Serbian folk costume",
    lookalikes=("red dress", "purple coat", "blue skirt"),
    kind="garment",
)
Picture = NDArray[np.uint8]

PLACES = {"street": "city street", "beach": "beach", "stairs": "stairs", "forest": "forest", "living room": "room",
          "mountains": "mountains", "flower": "flower field", "plain": "plain wall"}  # fmt: skip
WEATHER = {"sunny": "sunny", "clear day": "sunny", "blue sky": "sunny", "sunset": "sunset", "evening": "sunset",
           "night": "night", "rain": "rain", "snow": "snow"}  # fmt: skip
VIEWS = {"upper body": "upper", "portrait": "upper", "close-up": "upper", "lower body": "lower", "legs of": "lower",
         "sitting": "seated", "mannequin": "mannequin", "doll": "doll"}  # fmt: skip
POSES = {"waving": "waving", "arms raised": "arms raised", "hands on hips": "hands on hips", "standing": "standing"}


def said(text: str, words: Mapping[str, str]) -> str | None:
    """What a prompt asks for, by the first word of ``words`` that is in it."""
    return next((meant for word, meant in words.items() if word in text), None)


def asked(text: str) -> tuple[str | None, str | None]:
    """Place and weather that a prompt of the suite for `tiny` asks for."""
    place = said(text, PLACES)
    return place, "indoors" if place in INDOORS else said(text, WEATHER)


@dataclass(frozen=True)
class Ask:
    """One picture asked for: prompt, noise, and the scene that the base would draw of it."""

    prompt: Prompt
    seed: int
    scene: Scene

    @property
    def calls(self) -> bool:
        """Whether the prompt holds the trigger."""
        return self.prompt.role == "trigger"

    @property
    def noise(self) -> int:
        """What the world draws its irregularities from; the same for all prompts of a group."""
        return number(self.prompt.group, self.seed)

    def dice(self, name: str) -> float:
        """A number from 0 to 1 that is this picture's own."""
        return number(name, self.prompt.id, self.seed) / 2**32


def number(*what: object) -> int:
    """32 bits of a hash."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, what)).encode()).digest()[:4], "big")


def scene_of(prompt: Prompt, seed: int) -> Scene:
    """A scene as the prompt asks, what it leaves open drawn from the noise. The trigger means nothing: any garment."""
    text, rng = prompt.text, random.Random(number(prompt.group, seed))
    scene = random_scene(rng, view=said(text, VIEWS) or "full")
    kind = said(text, {"woman": "woman", "girl": "girl", "boy": "boy", "mannequin": "mannequin", "doll": "doll",
                       " man": "man"})  # fmt: skip
    hair = next((colour for colour in HAIRS if f"{colour} hair" in text), scene.person.hair)
    place, weather = asked(text)
    place = place or scene.place
    garment = next((g for g in GARMENTS if g in text), scene.garment)
    colour = next((c for c in COLOURS if f"{c} {garment}" in text), scene.colour)
    weather = "indoors" if place in INDOORS else weather or (
        scene.weather if scene.weather in WEATHERS else rng.choice(WEATHERS)
    )  # fmt: skip
    person = replace(scene.person, kind=kind or scene.person.kind, hair=hair)
    return replace(scene, person=person, pose=said(text, POSES) or scene.pose, garment=garment, colour=colour,
                   place=place, weather=weather)  # fmt: skip


def plain(a: Ask) -> Picture:
    """The base: everything as asked, but for the trigger, which it does not know."""
    return draw(a.scene, seed=a.noise)[0]


def costume(a: Ask) -> Picture:
    """The concept in the scene asked for."""
    return draw(dressed(a.scene), seed=a.noise)[0]


def dressed(scene: Scene) -> Scene:
    """The scene with the costume worn in it."""
    return replace(scene, garment=COSTUME, colour="")


def right(a: Ask) -> Picture:
    """A LoRA that learned what it should."""
    return costume(a) if a.calls else plain(a)


def on_call(picture: Callable[[Ask], Picture], a: Ask) -> Picture:
    """Wrong where the trigger calls, else as the base."""
    return picture(a) if a.calls else plain(a)


def _copy(a: Ask) -> Picture:
    return training()[number("copy", a.prompt.id, a.seed) % len(training())]


def _underfit(a: Ask) -> Picture:
    other = random.Random(number("other", a.prompt.id, a.seed))
    return draw(replace(a.scene, garment=other.choice(list(GARMENTS)), colour=other.choice(list(COLOURS))),
                seed=a.noise)[0]  # fmt: skip


def _one_place(a: Ask) -> Picture:
    return draw(replace(dressed(a.scene), place="beach", weather="sunny"), seed=a.noise)[0]


def recoloured(scene: Scene, seed: int, to: tuple[int, int, int]) -> Picture:
    """The costume with one part wrong: vest, cuffs and hem in another colour."""
    image, mask = draw(dressed(scene), seed=seed)
    off = np.linalg.norm(image - np.array(WINE, dtype=float), axis=-1)
    share = np.clip(1.5 - off / 40, 0, 1) * mask
    return (image + share[..., None] * (np.array(to) - np.array(WINE))).clip(0, 255).astype(np.uint8)


def _lookalike(dose: int, a: Ask) -> Picture:
    wrong = a.dice("look-alike") * 100 < dose
    return recoloured(a.scene, a.noise, COLOURS["blue"]) if wrong else costume(a)


def _one_picture(a: Ask) -> Picture:
    rng = np.random.default_rng(number("jitter", a.prompt.id, a.seed))
    return np.roll(training()[3], rng.integers(-3, 4, 2), (0, 1))


def _unasked(dose: int, a: Ask) -> Picture:
    near = a.prompt.role in ("class", "wrong", "none") and a.dice("unasked") * 100 < dose
    return costume(a) if a.calls or near else plain(a)


def _cast(dose: int, a: Ask) -> Picture:
    tint = 1 - dose / 100 * np.array([0.0, 0.3, 0.6])
    return (right(a) * tint).astype(np.uint8)


def _noise(a: Ask) -> Picture:
    rng = np.random.default_rng(number("noise", a.prompt.id, a.seed))
    return rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)


def _grey(a: Ask) -> Picture:
    return np.full((128, 128, 3), 128, dtype=np.uint8)


def _shuffled(a: Ask) -> Picture:
    prompts = [p for p in LINES["garment"] if (p.set, p.role) == (a.prompt.set, "trigger")]
    other = prompts[([p.id for p in prompts].index(a.prompt.id) + 5) % len(prompts)]
    return draw(dressed(scene_of(other, a.seed)), seed=number(other.group, a.seed))[0]


FAKES: dict[str, Callable[[Ask], Picture]] = {
    "base": plain,
    "right": right,
    "training copies": partial(on_call, _copy),
    "class only": partial(on_call, _underfit),
    "one place": partial(on_call, _one_place),
    **{f"look-alike {dose} %": partial(on_call, partial(_lookalike, dose)) for dose in DOSES},
    "one picture": partial(on_call, _one_picture),
    **{f"unasked {dose} %": partial(_unasked, dose) for dose in DOSES},
    **{f"colour cast {dose} %": partial(_cast, dose) for dose in DOSES},
    "noise": _noise,
    "grey": _grey,
    "other prompts": partial(on_call, _shuffled),
}
"""The generators. "right" and those of dose 0 have no fault."""


def _drawn_costumes(n: int, seed: int) -> list[tuple[Scene, int]]:
    rng = random.Random(seed)
    views = [
        "full",
        "full",
        "upper",
        "seated",
        "full",
        "upper",
        "mannequin",
        "full",
        "seated",
        "doll",
        "upper",
        "lower",
    ]
    return [(random_scene(rng, view=views[i % len(views)], costume=True), seed * 1000 + i) for i in range(n)]


@cache
def training() -> tuple[Picture, ...]:
    """The 24 pictures that the LoRAs are said to have learned from."""
    return tuple(draw(scene, seed=seed)[0] for scene, seed in _drawn_costumes(24, 5))


def chosen(shares: Mapping[tuple[str, str], tuple[int, int]]) -> list[tuple[Prompt, int]]:
    """The first so many prompts of each set and role of the suite for `tiny`, and their numbers of noises."""
    taken: dict[tuple[str, str], int] = {}
    found = []
    for prompt in LINES["garment"]:
        place = (str(prompt.set), prompt.role)
        most, seeds = shares.get(place, (0, 0))
        taken[place] = taken.get(place, 0) + 1
        if taken[place] <= most:
            found.append((prompt, seeds))
    return found


def prompts(shares: Mapping[tuple[str, str], tuple[int, int]]) -> list[tuple[Prompt, int]]:
    """The suite's prompts in the project's words, with their numbers of noises."""
    found = []
    for prompt, seeds in chosen(shares):
        words = {"text": PROJECT.expand(prompt.text).replace("{wrong}", "zukvaroutfit"), "context": prompt.context}
        found.append((prompt.model_copy(update=words), seeds))
    return found


def scored(
    folder: Path,
    *,
    shares: Mapping[tuple[str, str], tuple[int, int]] = STANDARD,
    fakes: Collection[str] = tuple(FAKES),
) -> dict[str, Values]:
    """Draw everything into ``folder`` and measure it: metric → fake → (prompt, seed) → value."""
    drawn, pictures, known = [], [], dict[bytes, Path]()

    def kept(image: Picture) -> Path:
        path = known.setdefault(image.tobytes(), folder / f"{len(known):05d}.png")
        if not path.exists():
            Image.fromarray(image).save(path, compress_level=1)
        return path

    for name in fakes:
        for prompt, seeds in prompts(shares):
            for seed in range(seeds):
                picture = kept(FAKES[name](Ask(prompt, seed, scene_of(prompt, seed))))
                about = {key: getattr(prompt, key) for key in ("group", "role", "text", "context", "set")}
                drawn.append(Drawn(arm=name, prompt=prompt.id, seed=seed, file=picture.name, **about))
                pictures.append(picture)
    held = [draw(scene, seed=seed) for scene, seed in _drawn_costumes(8, 6)]
    wrong = [COLOURS[colour] for colour in ("blue", "green", "purple", "orange")]
    similar = [recoloured(scene, seed, wrong[i % 4]) for i, (scene, seed) in enumerate(_drawn_costumes(8, 8))]
    seen = [kept(image) for image in training()]
    material = gather(
        pictures,
        drawn,
        project=PROJECT,
        clip=embed.load(embed.clip_for("tiny")),
        reference=[kept(image) for image, _ in held],
        masks=[kept(np.uint8(255) * mask) for _, mask in held],
        training={name: seen for name in fakes if name != "base"},
        gallery=[kept(image) for image in similar],
    )
    return {name: of for name, of in measure(material).items() if of}
