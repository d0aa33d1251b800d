"""The places of the world under its five skies."""

from __future__ import annotations

import random
from collections.abc import Callable

from vez.demo.world.brush import Brush, Colour, mix

WIDE = (-96, 224)
"""How far scenery reaches to the left and right, in units, so that wide pictures have no bare edges."""

SKIES: dict[str, tuple[Colour, Colour]] = {
    "sunny": ((86, 176, 240), (196, 230, 250)),
    "sunset": ((226, 92, 74), (252, 198, 110)),
    "night": ((16, 20, 60), (42, 52, 110)),
    "rain": ((104, 114, 128), (168, 176, 186)),
    "snow": ((176, 192, 212), (226, 234, 242)),
    "indoors": ((238, 226, 206), (238, 226, 206)),
}
LIGHT: dict[str, tuple[Colour, float]] = {
    "sunny": ((255, 255, 255), 0.0),
    "sunset": ((240, 110, 60), 0.30),
    "night": ((14, 18, 56), 0.56),
    "rain": ((112, 120, 132), 0.48),
    "snow": ((240, 244, 250), 0.30),
    "indoors": ((255, 255, 255), 0.0),
}


class Light:
    """Tints the colours of a place by its weather."""

    def __init__(self, weather: str) -> None:
        self.weather = weather

    def __call__(self, r: int, g: int, b: int) -> Colour:
        """The colour as it looks under this sky."""
        towards, share = LIGHT[self.weather]
        return mix((r, g, b), towards, share)

    def ground(self, r: int, g: int, b: int) -> Colour:
        """The colour of open ground: covered when it snows."""
        return (240, 244, 250) if self.weather == "snow" else self(r, g, b)


def _city(b: Brush, light: Light, rng: random.Random) -> None:
    x, k = WIDE[0] + rng.uniform(0, 20), rng.randrange(3)
    walls = ((176, 112, 96), (120, 136, 166), (204, 184, 150))
    while x < WIDE[1]:
        w, top = 30, (24, 40, 12, 32)[k % 4]
        b.rect(x, top, x + w, 96, light(*walls[k % 3]))
        pane = (250, 214, 110) if light.weather == "night" else light(214, 234, 246)
        for row in range(5):
            for column in range(2):
                b.rect(x + 5 + column * 12, top + 6 + row * 14, x + 13 + column * 12, top + 15 + row * 14, pane)
        x, k = x + w + 3, k + 1
    b.rect(WIDE[0], 94, WIDE[1], 104, light.ground(186, 184, 180))
    b.rect(WIDE[0], 104, WIDE[1], 224, light(88, 92, 102))
    for x in range(WIDE[0], WIDE[1], 28):
        b.rect(x, 117, x + 14, 120, light(240, 240, 232))


def _tree(b: Brush, light: Light, x: float, foot: float, size: float) -> None:
    b.rect(x - 0.09 * size, foot - 0.5 * size, x + 0.09 * size, foot, light(122, 82, 52))
    leaves = light.ground(60, 146, 72) if light.weather != "snow" else (206, 224, 226)
    b.oval(x, foot - 0.85 * size, 0.42 * size, 0.48 * size, leaves)


def _fir(b: Brush, light: Light, x: float, foot: float, size: float) -> None:
    b.rect(x - 0.07 * size, foot - 0.2 * size, x + 0.07 * size, foot, light(104, 70, 46))
    for low, wide in ((0.12, 0.42), (0.42, 0.34), (0.70, 0.25)):
        y = foot - low * size
        b.poly([(x - wide * size, y), (x + wide * size, y), (x, y - 0.55 * size)], light(32, 104, 72))
        if light.weather == "snow":
            cap = wide * 0.5
            b.poly(
                [(x - cap * size, y - 0.275 * size), (x + cap * size, y - 0.275 * size), (x, y - 0.55 * size)],
                (240, 244, 250),
            )


def _forest(b: Brush, light: Light, rng: random.Random) -> None:
    b.rect(WIDE[0], 84, WIDE[1], 224, light.ground(84, 148, 70))
    for x in range(WIDE[0], WIDE[1], 22):
        _fir(b, light, x + rng.uniform(-4, 4), 92, 62 + rng.uniform(-6, 10))
    for x in (-60, 8, 120, 188):
        _fir(b, light, x + rng.uniform(-6, 6), 108, 92 + rng.uniform(-6, 6))


def _beach(b: Brush, light: Light, rng: random.Random) -> None:
    b.rect(WIDE[0], 66, WIDE[1], 92, light(44, 134, 200))
    b.rect(WIDE[0], 74, WIDE[1], 77, light(120, 190, 226))
    b.rect(WIDE[0], 90, WIDE[1], 224, light.ground(240, 214, 152))
    x = rng.choice((8, 120)) + rng.uniform(-4, 4)
    b.line([(x, 108), (x + 3, 76), (x, 44)], 5, light(150, 104, 62))
    for dx, dy in ((-20, 6), (-16, -8), (16, -8), (20, 6), (0, -14)):
        b.line([(x, 44), (x + dx * 0.6, 44 + dy * 0.9 - 4), (x + dx, 44 + dy + 4)], 5, light(46, 142, 74))


def _stairs(b: Brush, light: Light, rng: random.Random) -> None:
    b.rect(WIDE[0], 76, WIDE[1], 224, light.ground(104, 172, 84))
    for x in (-70, -22, 12, 116, 150, 198):
        _tree(b, light, x + rng.uniform(-4, 4), 84, 54 + rng.uniform(-4, 4))
    for x in [*range(WIDE[0], 28, 9), *range(100, WIDE[1], 9)]:
        b.rect(x, 76, x + 5, 100, light(158, 108, 66))
    for x0, x1 in ((WIDE[0], 28), (100, WIDE[1])):
        b.rect(x0, 82, x1, 86, light(132, 88, 54))
    for i in range(9):
        b.rect(
            32 - 3 * i,
            72 + 8 * i,
            96 + 3 * i,
            80 + 8 * i,
            light.ground(196, 190, 182) if i % 2 else light(160, 154, 148),
        )


def _room(b: Brush, light: Light, rng: random.Random) -> None:
    b.rect(WIDE[0], 96, WIDE[1], 224, (176, 122, 78))
    b.rect(WIDE[0], 94, WIDE[1], 97, (250, 246, 238))
    left = rng.random() < 0.5
    x, y = (8, 92) if left else (92, 12)
    b.rect(x - 2, 18, x + 26, 52, (250, 248, 244))
    b.rect(x, 20, x + 24, 50, (150, 206, 240))
    b.rect(x + 11, 20, x + 13, 50, (250, 248, 244))
    b.rect(y, 24, y + 22, 42, (150, 96, 52))
    b.rect(y + 3, 27, y + 19, 39, (246, 208, 120))
    sofa = (70, 130, 140)
    for x0 in (-70, 84 if left else -4):
        b.blob([(x0, 74), (x0 + 48, 74), (x0 + 50, 102), (x0 - 2, 102)], sofa)
        b.rect(x0 + 2, 90, x0 + 46, 104, mix(sofa, (0, 0, 0), 0.2))


def _mountains(b: Brush, light: Light, rng: random.Random) -> None:
    b.rect(WIDE[0], 86, WIDE[1], 224, light.ground(122, 178, 88))
    for x, top, half in ((-58, 34, 48), (20, 22, 52), (104, 30, 50), (184, 26, 52)):
        x += rng.randint(-8, 8)
        b.poly([(x - half, 88), (x, top), (x + half, 88)], light(122, 134, 164))
        b.poly(
            [(x - half * 0.3, top + (88 - top) * 0.3), (x, top), (x + half * 0.3, top + (88 - top) * 0.3)],
            light(250, 252, 255),
        )


def _flowers(b: Brush, light: Light, rng: random.Random) -> None:
    b.rect(WIDE[0], 78, WIDE[1], 224, light.ground(116, 190, 84))
    petals = ((232, 70, 90), (250, 214, 70), (170, 96, 210))
    for i, x in enumerate(range(WIDE[0], WIDE[1], 16)):
        for j, y in enumerate(range(87, 200, 13)):
            at = x + (j % 2) * 8 + rng.uniform(-1, 1), y + rng.uniform(-1, 1)
            b.oval(*at, 3.2, 3.2, light(*petals[(i + j) % 3]))


def _wall(b: Brush, light: Light, rng: random.Random) -> None:
    b.sky((190, 204, 214), (206, 218, 226), 90)
    b.rect(WIDE[0], 104, WIDE[1], 224, (166, 178, 188))


PLACES: dict[str, Callable[[Brush, Light, random.Random], None]] = {
    "city street": _city,
    "forest": _forest,
    "beach": _beach,
    "stairs": _stairs,
    "mountains": _mountains,
    "flower field": _flowers,
    "room": _room,
    "plain wall": _wall,
}
INDOORS = ("room", "plain wall")
"""Places without weather."""


def _cloud(b: Brush, x: float, y: float, fill: Colour) -> None:
    for dx, dy, r in ((-9, 1, 6), (0, -2, 8), (9, 1, 6)):
        b.oval(x + dx, y + dy, r, r * 0.8, fill)


def draw_place(b: Brush, place: str, weather: str, rng: random.Random) -> None:
    """Sky and scenery: everything behind the figure."""
    b.sky(*SKIES[weather], horizon=90)
    if weather == "sunny":
        b.oval(rng.choice((18, 108)) + rng.uniform(-3, 3), 18, 10, 10, (255, 222, 84))
    elif weather == "sunset":
        b.oval(rng.choice((24, 104)), 62, 15, 15, (255, 236, 150))
    elif weather == "night":
        x = rng.choice((20, 106))
        b.oval(x, 18, 9, 9, (250, 244, 206))
        b.oval(x + 4, 15.5, 8, 8, (19, 23, 65))
        for _ in range(26):
            b.oval(rng.uniform(-60, 188), rng.uniform(-40, 52), 1.1, 1.1, (250, 246, 220))
    if weather in ("sunny", "rain", "snow"):
        fill = (252, 254, 255) if weather == "sunny" else (84, 92, 106) if weather == "rain" else (244, 247, 251)
        for x in (-50, 14, 62, 112, 170):
            _cloud(b, x + rng.uniform(-8, 8), 14 + rng.uniform(-4, 6) + (12 if weather == "sunny" else 0), fill)
    PLACES[place](b, Light(weather), rng)


def draw_falling(b: Brush, weather: str, rng: random.Random) -> None:
    """Rain or snow: what falls in front of everything."""
    if weather == "rain":
        for x in range(-60, 190, 21):
            for y in range(-60, 190, 28):
                px, py = x + rng.uniform(-5, 5), y + rng.uniform(-8, 8)
                b.line([(px, py), (px - 2.5, py + 9)], 1.3, (206, 222, 238))
    elif weather == "snow":
        for x in range(-60, 190, 22):
            for y in range(-60, 190, 24):
                b.oval(x + rng.uniform(-6, 6), y + rng.uniform(-6, 6), 1.9, 1.9, (255, 255, 255))
