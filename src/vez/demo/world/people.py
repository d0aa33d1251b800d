"""People, mannequins and dolls. Local units: x = 0 is the body's middle, y grows downwards, the soles stand at 114."""

from __future__ import annotations

from dataclasses import dataclass

from vez.demo.world.brush import Brush, Colour, Point, mix

SKINS: tuple[Colour, ...] = ((252, 222, 198), (238, 190, 150), (190, 132, 92), (128, 84, 58))
HAIRS: dict[str, Colour] = {
    "black": (38, 32, 36),
    "brown": (112, 68, 38),
    "blonde": (240, 200, 96),
    "red": (206, 88, 40),
    "grey": (176, 178, 184),
}
STYLES = {
    "woman": ("long", "bun", "curly"),
    "girl": ("long", "braids", "bun"),
    "man": ("short", "spiky"),
    "boy": ("short", "spiky"),
}
INK: Colour = (48, 36, 40)
BLUSH: Colour = (240, 140, 130)
SHOES: Colour = (92, 60, 44)
WOOD: Colour = (206, 170, 124)


@dataclass(frozen=True)
class Person:
    """Who wears the garment. `kind` is woman, man, girl, boy, mannequin or doll."""

    kind: str
    skin: int
    hair: str
    style: str
    glasses: bool = False
    hat: str = ""

    @property
    def alive(self) -> bool:
        """Whether it is a person rather than a mannequin or a doll."""
        return self.kind not in ("mannequin", "doll")

    @property
    def skin_colour(self) -> Colour:
        """The colour of face and hands; wood for a mannequin, cloth for a doll."""
        return {"mannequin": WOOD, "doll": (250, 232, 214)}.get(self.kind, SKINS[self.skin])


ARMS: dict[str, tuple[tuple[Point, Point], tuple[Point, Point]]] = {
    "standing": (((-20, 67), (-20, 80)), ((20, 67), (20, 80))),
    "hands on hips": (((-26, 66), (-15, 77)), ((26, 66), (15, 77))),
    "waving": (((-20, 67), (-20, 80)), ((25, 60), (28, 42))),
    "arms raised": (((-25, 60), (-28, 42)), ((25, 60), (28, 42))),
}
"""Elbow and hand of the left and the right arm for each pose."""
SHOULDERS: tuple[Point, Point] = ((-13, 57), (13, 57))


def draw_arms(b: Brush, pose: str, sleeve: Colour, skin: Colour, *, short: bool = False, width: float = 8.5) -> None:
    """Both arms; a short sleeve ends above the elbow. The sleeve counts as the garment, the skin does not."""
    for shoulder, (elbow, hand) in zip(SHOULDERS, ARMS[pose], strict=True):
        with b.marked(False):
            b.line([shoulder, elbow, hand], width - 2, skin)
            b.oval(*hand, 4.3, 4.3, skin)
        end = tuple(s + (e - s) * 0.6 for s, e in zip(shoulder, elbow, strict=True))
        cuff = tuple(e + (h - e) * 0.72 for e, h in zip(elbow, hand, strict=True))
        b.line([shoulder, end] if short else [shoulder, elbow, cuff], width, sleeve)  # type: ignore[list-item]


def draw_legs(b: Brush, colour: Colour, *, seated: bool = False) -> None:
    """Both legs with shoes."""
    for side in (-1, 1):
        if seated:
            b.line([(6 * side, 82), (9 * side, 91), (9 * side, 106)], 9, colour)
            b.oval(11 * side, 110, 6, 3.6, SHOES)
        else:
            b.line([(6 * side, 80), (6.5 * side, 107)], 9.5, colour)
            b.oval(8 * side, 111, 6.2, 3.6, SHOES)


def draw_hair_behind(b: Brush, who: Person) -> None:
    """The hair that hangs behind head and shoulders."""
    colour = HAIRS[who.hair]
    if who.style == "long":
        b.blob([(-18, 22), (0, 12), (18, 22), (21, 46), (18, 64), (0, 66), (-18, 64), (-21, 46)], colour)
    elif who.style == "curly":
        for x, y in ((-15, 20), (0, 15), (15, 20), (-20, 32), (20, 32), (-18, 44), (18, 44)):
            b.oval(x, y, 9.5, 9.5, colour)
    elif who.style == "bun":
        b.oval(0, 11, 8.5, 8, colour)


def draw_hair_front(b: Brush, who: Person) -> None:
    """The hair over the forehead."""
    colour = HAIRS[who.hair]
    if who.style == "spiky":
        b.poly(
            [
                (-18, 31),
                (-19, 16),
                (-12, 20),
                (-8, 10),
                (-2, 17),
                (4, 9),
                (9, 18),
                (17, 12),
                (18, 31),
                (12, 24),
                (-12, 24),
            ],
            colour,
        )
    else:
        b.blob(
            [(-18.2, 33), (-17.5, 20), (-8, 13.5), (8, 13.5), (17.5, 20), (18.2, 33), (13, 25), (2, 22.5), (-9, 25)],
            colour,
        )
    if who.style == "braids":
        for side in (-1, 1):
            for i, r in enumerate((4.6, 4.4, 4.1, 3.8)):
                b.oval((18.5 + 1.2 * i) * side, 42 + 7 * i, r, r + 0.6, colour)


def draw_face(b: Brush, who: Person) -> None:
    """Head and face; a mannequin has none, a doll has buttons for eyes."""
    skin = who.skin_colour
    b.rect(-4.5, 44, 4.5, 55, mix(skin, INK, 0.12))
    if who.kind == "mannequin":
        b.oval(0, 33, 12.5, 16, skin)
        b.line([(0, 18), (0, 48)], 0.9, mix(skin, INK, 0.25))
        return
    for side in (-1, 1):
        b.oval(17 * side, 34, 3.2, 4, skin)
    b.oval(0, 33, 17.5, 16.5, skin)
    for side in (-1, 1):
        if who.kind == "doll":
            b.oval(6.5 * side, 33, 3.6, 3.6, INK)
            b.oval(6.5 * side, 33, 1.2, 1.2, (240, 240, 240))
        else:
            b.oval(6.5 * side, 33.5, 2.2, 2.7, INK)
        b.oval(11 * side, 39.5, 3.2, 2.2, mix(skin, BLUSH, 0.75 if who.kind == "doll" else 0.5))
        b.line([(4.2 * side, 28), (9 * side, 27.6)], 1.3, mix(HAIRS[who.hair], INK, 0.4))
    b.arc(0, 38.5, 4.6, 4.2, (20, 160), 1.7, (176, 52, 56))
    if who.glasses:
        for side in (-1, 1):
            b.ring(6.6 * side, 33.5, 5.6, 1.4, INK)
        b.line([(-1.4, 33), (1.4, 33)], 1.3, INK)


def draw_hat(b: Brush, hat: str) -> None:
    """A straw hat or a woolly hat."""
    if hat == "straw hat":
        b.blob([(-11, 20), (-9, 8), (0, 5), (9, 8), (11, 20)], (232, 200, 120))
        b.rect(-11, 15.5, 11, 20, (170, 60, 50))
        b.oval(0, 21, 25, 4.6, (222, 188, 104))
    elif hat == "woolly hat":
        b.blob([(-17.5, 24), (-15, 11), (0, 4), (15, 11), (17.5, 24)], (70, 92, 120))
        b.rect(-18, 20, 18, 26, (226, 230, 236))
        b.oval(0, 4, 4.6, 4.6, (226, 230, 236))
