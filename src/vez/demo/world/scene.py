"""A scene: its record, how it is drawn, and which scenes the base is taught."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

import numpy as np

from vez.demo.world.brush import Brush
from vez.demo.world.garments import COLOURS, COSTUME, GARMENTS, draw_garment
from vez.demo.world.people import (
    ARMS,
    HAIRS,
    SKINS,
    STYLES,
    Person,
    draw_face,
    draw_hair_behind,
    draw_hair_front,
    draw_hat,
)
from vez.demo.world.places import INDOORS, PLACES, WIDE, draw_falling, draw_place

WEATHERS = ("sunny", "sunset", "night", "rain", "snow")
VIEWS: dict[str, float] = {"full": 0.46, "upper": 0.20, "seated": 0.14, "lower": 0.06, "mannequin": 0.07, "doll": 0.07}
"""The six views of the reference study, and how often the base sees each."""
LOWER_GARMENTS = ("dress", "coat", "overalls", "skirt")
"""The garments that can be told apart from the waist down."""


@dataclass(frozen=True)
class Scene:
    """Everything that decides a picture, but for the small irregularities drawn from the seed."""

    view: str
    person: Person
    pose: str
    garment: str
    colour: str
    place: str
    weather: str
    dx: float = 0.0
    scale: float = 1.0

    @property
    def combination(self) -> tuple[str, str, str, str]:
        """What the base is asked to combine: garment, colour, place, weather."""
        return (self.garment, self.colour, self.place, self.weather)


def held_out(scene: Scene) -> bool:
    """Whether this combination is kept from the base's training: a tenth of them, chosen by hash."""
    return hashlib.sha256("|".join(scene.combination).encode()).digest()[0] < 26


def random_scene(rng: random.Random, *, view: str | None = None, costume: bool = False) -> Scene:
    """A scene at random. The costume appears only when asked for."""
    view = view or rng.choices(list(VIEWS), list(VIEWS.values()))[0]
    kind = view if view in ("mannequin", "doll") else rng.choice(("woman", "man", "girl", "boy"))
    if costume and kind in ("man", "boy"):
        kind = {"man": "woman", "boy": "girl"}[kind]
    style = rng.choice(STYLES.get(kind, ("braids", "short")))
    hat = rng.choices(("", "straw hat", "woolly hat"), (0.8, 0.1, 0.1))[0] if kind != "mannequin" else ""
    person = Person(kind, rng.randrange(len(SKINS)), rng.choice(list(HAIRS)), style, rng.random() < 0.2, hat)
    choice = [
        g
        for g in GARMENTS
        if (view != "upper" or g != "skirt")
        and (view != "lower" or g in LOWER_GARMENTS)
        and (kind not in ("man", "boy") or g not in ("dress", "skirt"))
    ]
    place = rng.choice(list(PLACES))
    return Scene(
        view=view,
        person=person,
        pose="standing" if view == "mannequin" else rng.choice(list(ARMS)),
        garment=COSTUME if costume else rng.choice(choice),
        colour="" if costume else rng.choice(list(COLOURS)),
        place=place,
        weather="indoors" if place in INDOORS else rng.choice(WEATHERS),
        dx=rng.uniform(-9, 9),
        scale=rng.uniform(0.96, 1.04),
    )


def training_scene(rng: random.Random) -> Scene:
    """A scene that the base may see: never the costume, never a held-out combination."""
    while True:
        scene = random_scene(rng)
        if not held_out(scene):
            return scene


def unseen_scene(rng: random.Random) -> Scene:
    """A scene whose combination was never drawn in the base's training."""
    scene = random_scene(rng, view=rng.choices(("full", "upper", "seated"), (0.6, 0.25, 0.15))[0])
    while not held_out(scene):
        scene = replace(
            scene,
            place=(place := rng.choice(list(PLACES))),
            weather="indoors" if place in INDOORS else rng.choice(WEATHERS),
            colour=rng.choice(list(COLOURS)),
        )
    return scene


def _figure(b: Brush, scene: Scene) -> None:
    who, seated = scene.person, scene.view == "seated"
    if seated:
        b.rect(-34, 84, 34, 90, (150, 104, 66))
        for x in (-31, 26):
            b.rect(x, 90, x + 5, 112, (122, 82, 52))
    if who.kind != "mannequin":
        draw_hair_behind(b, who)
    draw_garment(b, who, scene.pose, scene.garment, scene.colour, seated=seated)
    draw_face(b, who)
    if who.kind != "mannequin":
        draw_hair_front(b, who)
        draw_hat(b, who.hat)


CAMERA: dict[str, tuple[float, float, float]] = {
    "full": (64, 6, 1.0),
    "seated": (64, 6, 1.0),
    "mannequin": (64, 8, 0.98),
    "upper": (64, -4, 1.62),
    "lower": (64, -72, 1.72),
    "doll": (64, 30, 0.72),
}
"""Where local (0, 0) lands, and the enlargement, for each view."""


def draw(
    scene: Scene, *, seed: int, size: tuple[int, int] = (128, 128), fine: int = 4, empty: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The picture (height, width, 3) uint8 and the garment's mask (height, width) bool.

    `size` is (width, height) in pixels; the same scene, seed and size give the same bytes. `empty` leaves out the
    figure.
    """
    rng = random.Random(seed)
    b = Brush(*size, fine=fine)
    draw_place(b, scene.place, scene.weather, rng)
    x, y, zoom = CAMERA[scene.view]
    if not empty:
        if scene.view == "doll":
            b.rect(WIDE[0], 104, WIDE[1], 224, (164, 112, 70))
            b.rect(WIDE[0], 104, WIDE[1], 107, (196, 142, 94))
        small = 0.92 if scene.person.kind in ("girl", "boy") and scene.view in ("full", "seated") else 1.0
        scale = zoom * scene.scale * small
        with b.moved(x + scene.dx, y + 114 * (zoom - scale), scale):
            _figure(b, scene)
    draw_falling(b, scene.weather, rng)
    return b.finished()
