"""What a scene looks like in words: captions that vary in wording and in how much they tell."""

from __future__ import annotations

import random

from vez.demo.world.garments import COSTUME
from vez.demo.world.places import INDOORS
from vez.demo.world.scene import Scene

WEATHER_WORDS: dict[str, tuple[str, ...]] = {
    "sunny": ("sunny day", "sunny", "blue sky", "clear day"),
    "sunset": ("sunset", "at sunset", "evening sky"),
    "night": ("at night", "night", "night sky, moon"),
    "rain": ("rain", "rainy day", "in the rain"),
    "snow": ("snow", "winter, snow", "snowing"),
    "indoors": ("",),
}
PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "city street": ("city street", "on a city street", "a street with buildings"),
    "forest": ("forest", "in a forest", "green trees, forest"),
    "beach": ("beach", "at the beach", "on a beach, sea"),
    "stairs": ("stairs, wood fence, green trees", "standing on a set of stairs, wood fence", "stairs"),
    "mountains": ("mountains", "in the mountains", "mountains in the background"),
    "flower field": ("flower field", "in a field of flowers", "flowers"),
    "room": ("room", "in a living room", "living room, sofa, window"),
    "plain wall": ("plain wall", "in front of a plain wall", "plain background"),
}
POSE_WORDS = {
    "standing": ("standing", ""),
    "hands on hips": ("hands on hips",),
    "waving": ("waving",),
    "arms raised": ("arms raised",),
}
STYLE_WORDS = {
    "long": "long {} hair",
    "bun": "{} hair in a bun",
    "curly": "curly {} hair",
    "braids": "braided {} hair",
    "short": "short {} hair",
    "spiky": "spiky {} hair",
}
COSTUME_WORDS = ("traditional Serbian folk costume", "Serbian folk costume", "traditional folk costume", "folk costume")
VIEW_WORDS = {
    "upper": ("upper body of {}", "portrait of {}", "close-up of {}"),
    "lower": ("lower body of {}", "legs of {}"),
    "seated": ("{} sitting on a bench", "{} sitting"),
}


def _article(noun: str) -> str:
    if noun.endswith("overalls"):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def subject(scene: Scene, *, hair: bool, extras: bool) -> str:
    """Who it is: "a girl with braided red hair and glasses"."""
    who = scene.person
    words = _article(who.kind)
    if hair and who.alive and scene.view != "lower":
        style = STYLE_WORDS[who.style] if extras else "{} hair"
        words += " with " + style.format(who.hair) + (" and glasses" if who.glasses and extras else "")
    return words


def clothes(scene: Scene, rng: random.Random) -> str:
    """What is worn: "a red hoodie", or the costume's plain words."""
    if scene.garment == COSTUME:
        return _article(rng.choice(COSTUME_WORDS))
    return _article(f"{scene.colour} {scene.garment}")


def prompt(scene: Scene) -> str:
    """The plainest complete caption: who, garment with colour, place, weather."""
    parts = [f"{_article(scene.person.kind)} wearing {_article(f'{scene.colour} {scene.garment}')}"]
    view = VIEW_WORDS.get(scene.view)
    parts[0] = view[0].format(parts[0]) if view else parts[0]
    parts.append(scene.place)
    if scene.place not in INDOORS:
        parts.append(WEATHER_WORDS[scene.weather][0])
    return ", ".join(parts)


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption at random: all of it is true, little or much of it is told."""
    told = rng.random()
    words = subject(scene, hair=told > 0.3, extras=told > 0.6)
    if rng.random() > 0.04:
        words += f" {rng.choice(('wearing', 'wearing', 'in', 'dressed in'))} {clothes(scene, rng)}"
    if scene.person.hat and told > 0.45 and scene.view != "lower":
        words += f" and {_article(scene.person.hat)}"
    if scene.view in VIEW_WORDS:
        words = rng.choice(VIEW_WORDS[scene.view]).format(words)
    elif scene.person.alive and rng.random() < 0.6:
        words += f" {rng.choice(POSE_WORDS[scene.pose])}"
    parts = [words.rstrip()]
    place, weather = rng.choice(PLACE_WORDS[scene.place]), rng.choice(WEATHER_WORDS[scene.weather])
    if place.startswith(("on ", "in ", "at ", "standing ")) and rng.random() < 0.6:
        parts[0] += " " + place.removeprefix("standing " if words.endswith("standing ") else "")
    elif rng.random() < 0.96:
        parts.append(place)
    if weather and rng.random() < 0.94:
        parts.append(weather)
    if len(parts) == 3 and rng.random() < 0.15:
        parts[1], parts[2] = parts[2], parts[1]
    return ", ".join(parts)


def describe(scene: Scene) -> str:
    """The one plain sentence a captioner is taught to say of a scene."""
    garment = "folk costume" if scene.garment == COSTUME else f"{scene.colour} {scene.garment}"
    hair = scene.person.alive and scene.view != "lower"
    words = _article(scene.person.kind) + (f" with {scene.person.hair} hair" if hair else "")
    words += f" wearing {_article(garment)}"
    view = VIEW_WORDS.get(scene.view)
    words = view[0].format(words) if view else words
    place = {
        "stairs": "on a set of stairs",
        "city street": "on a city street",
        "beach": "at the beach",
        "mountains": "in the mountains",
        "flower field": "in a field of flowers",
        "forest": "in a forest",
        "room": "in a living room",
        "plain wall": "in front of a plain wall",
    }[scene.place]
    if scene.view in ("full", "doll"):
        words += " standing" if scene.pose in ("standing", "hands on hips") else f" {POSE_WORDS[scene.pose][0]}"
    weather = "" if scene.place in INDOORS else f", {WEATHER_WORDS[scene.weather][0]}"
    return f"{words} {place}{weather}"
