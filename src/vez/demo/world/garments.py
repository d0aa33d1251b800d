"""What people wear: seven plain garments in eight colours, and the folk costume that the base never sees."""

from __future__ import annotations

from collections.abc import Callable

from vez.demo.world.brush import Brush, Colour, mix
from vez.demo.world.people import ARMS, INK, Person, draw_arms, draw_legs

COLOURS: dict[str, Colour] = {
    "red": (220, 48, 52),
    "blue": (44, 98, 204),
    "green": (46, 150, 78),
    "yellow": (246, 206, 60),
    "purple": (134, 72, 178),
    "orange": (242, 134, 40),
    "pink": (246, 148, 186),
    "black": (50, 48, 56),
}
WHITE: Colour = (248, 246, 240)
TROUSERS: Colour = (72, 82, 112)
WINE: Colour = (150, 20, 44)
GOLD: Colour = (230, 182, 62)


def _dark(colour: Colour) -> Colour:
    return mix(colour, (0, 0, 0), 0.22) if colour != COLOURS["black"] else (84, 82, 92)


def _torso(b: Brush, colour: Colour, low: float = 82) -> None:
    b.poly([(-9, 51), (9, 51), (16, 55), (14, low), (-14, low), (-16, 55)], colour)


def _legs(b: Brush, who: Person, colour: Colour, seated: bool) -> None:
    if who.kind == "mannequin":
        with b.marked(False):
            b.rect(-1.6, 80, 1.6, 112, (90, 86, 84))
            b.oval(0, 112, 14, 3, (90, 86, 84))
    else:
        draw_legs(b, colour, seated=seated)


def _bare(b: Brush, who: Person, seated: bool) -> None:
    with b.marked(False):
        _legs(b, who, who.skin_colour, seated)


def _trousers(b: Brush, who: Person, seated: bool) -> None:
    with b.marked(False):
        _legs(b, who, TROUSERS, seated)


def _flared(b: Brush, colour: Colour, low: float, wide: float) -> None:
    b.poly([(-12, 74), (12, 74), (wide, low), (-wide, low)], colour)


def _tshirt(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _trousers(b, who, seated)
    _torso(b, colour)
    draw_arms(b, pose, _dark(colour), who.skin_colour, short=True, width=10)
    b.arc(0, 51, 6, 4, (10, 170), 1.6, _dark(colour))


def _hoodie(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _trousers(b, who, seated)
    _torso(b, colour, 84)
    b.oval(0, 52, 13.5, 6.5, _dark(colour))
    draw_arms(b, pose, mix(colour, _dark(colour), 0.5), who.skin_colour, width=9.5)
    b.poly([(-8, 70), (8, 70), (10.5, 79), (-10.5, 79)], _dark(colour))
    for side in (-1, 1):
        b.line([(3 * side, 57), (3 * side, 65)], 1.5, WHITE)


def _sweater(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _trousers(b, who, seated)
    _torso(b, colour, 83)
    for y in (58, 66, 74):
        b.rect(-14.8, y, 14.8, y + 4, WHITE)
    draw_arms(b, pose, _dark(colour), who.skin_colour)


def _dress(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _bare(b, who, seated)
    _torso(b, colour, 76)
    _flared(b, colour, 97 if seated else 102, 25)
    draw_arms(b, pose, _dark(colour), who.skin_colour, short=True, width=10)
    b.rect(-13, 73, 13, 76.5, _dark(colour))


def _coat(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _trousers(b, who, seated)
    low = 96 if seated else 100
    b.poly([(-9, 51), (9, 51), (16, 55), (18, low), (-18, low), (-16, 55)], colour)
    b.line([(0, 58), (0, low)], 1.4, _dark(colour))
    for y in (66, 75, 84):
        b.oval(4.5, y, 1.9, 1.9, WHITE)
    draw_arms(b, pose, _dark(colour), who.skin_colour, width=9.5)
    for side in (-1, 1):
        b.poly([(0, 60), (3 * side, 50), (12 * side, 51), (8 * side, 62)], _dark(colour))


def _overalls(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _legs(b, who, colour, seated)
    _torso(b, WHITE)
    draw_arms(b, pose, mix(WHITE, INK, 0.1), who.skin_colour)
    b.rect(-14.2, 73, 14.2, 84, colour)
    b.rect(-9, 62, 9, 76, colour)
    for side in (-1, 1):
        b.line([(7 * side, 63), (9.5 * side, 53)], 3.4, colour)
        b.oval(7 * side, 64.5, 1.6, 1.6, GOLD)
    b.rect(-4.5, 67, 4.5, 72, _dark(colour))


def _skirt(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    _bare(b, who, seated)
    with b.marked(False):
        _torso(b, WHITE, 78)
        draw_arms(b, pose, mix(WHITE, INK, 0.1), who.skin_colour)
    _flared(b, colour, 95 if seated else 100, 23)
    b.rect(-13, 73, 13, 77, _dark(colour))


def _apron(b: Brush, low: float) -> None:
    b.poly([(-10, 77), (10, 77), (15, low), (-15, low)], (40, 30, 60))
    for row, y in enumerate((83.5, 92.0)):
        for side in (-1, 1):
            x, fill = (5.0 + row) * side, ((228, 60, 60), GOLD)[(row + (side > 0)) % 2]
            b.poly([(x - 4, y), (x, y - 4), (x + 4, y), (x, y + 4)], fill)


def _costume(b: Brush, who: Person, pose: str, colour: Colour, seated: bool) -> None:
    """White blouse, dark-red vest with gold trim, gold necklace, white skirt, dark apron with a diamond pattern."""
    _bare(b, who, seated)
    low = 99 if seated else 103
    _flared(b, WHITE, low, 25)
    b.poly([(-24, low - 5), (24, low - 5), (25, low), (-25, low)], WINE)
    _torso(b, WHITE, 78)
    draw_arms(b, pose, mix(WHITE, INK, 0.07), who.skin_colour, width=10.5)
    for elbow, hand in ARMS[pose]:
        b.oval(elbow[0] + (hand[0] - elbow[0]) * 0.62, elbow[1] + (hand[1] - elbow[1]) * 0.62, 5.4, 4.2, WINE)
    _apron(b, low - 6)
    for side in (-1, 1):
        edge = [(3.5 * side, 51), (3.0 * side, 68), (3.0 * side, 77)]
        b.poly([(3.5 * side, 51), (11 * side, 51), (15.5 * side, 56), (14.5 * side, 78), *reversed(edge[1:])], WINE)
        b.line(edge, 1.5, GOLD)
        for button in (62, 71):
            b.oval(9.0 * side, button, 1.5, 1.5, GOLD)
    b.rect(-14.2, 75.5, 14.2, 79, GOLD)
    for x, y in ((-6, 52.6), (-3.4, 55.6), (0, 57), (3.4, 55.6), (6, 52.6)):
        b.oval(x, y, 1.9, 1.9, GOLD)


GARMENTS: dict[str, Callable[[Brush, Person, str, Colour, bool], None]] = {
    "t-shirt": _tshirt,
    "hoodie": _hoodie,
    "striped sweater": _sweater,
    "dress": _dress,
    "coat": _coat,
    "overalls": _overalls,
    "skirt": _skirt,
}
COSTUME = "folk costume"


def draw_garment(b: Brush, who: Person, pose: str, garment: str, colour: str, *, seated: bool) -> None:
    """The garment with the limbs in it, marked in the mask."""
    draw = _costume if garment == COSTUME else GARMENTS[garment]
    with b.marked():
        draw(b, who, pose, COLOURS.get(colour, WHITE), seated)
