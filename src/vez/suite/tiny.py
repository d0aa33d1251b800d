"""The suite of the embedded base `tiny`: the sets of v1 in words that it knows, since of metro stations it knows none.

Its people, garments, colours, places and weathers are those of `vez.demo.world`; a garment is the only kind of concept.
The first eight scenes of B are the demo's.
"""

from typing import Any

from vez.config import Prompt
from vez.suite.wording import STANDARD_SCENES, Lines

# (who, what follows the garment): "<trigger>, <who> wearing traditional <trigger><rest>", as its captions are written.
_SCENES = (
    ("a girl with brown hair", ", city street, sunny day"),
    ("a woman with black hair", " waving, at the beach, sunset"),
    ("a girl", " standing on a set of stairs, wood fence, sunny day"),
    ("a woman with red hair", ", forest, snow"),
    ("a woman with blonde hair", " sitting on a bench, in a living room"),
    ("a girl with black hair", ", mountains, sunny day"),
    ("a girl with blonde hair", ", arms raised, in a field of flowers, sunny day"),
    ("a woman with blonde hair", ", city street, at night"),
    ("a woman with grey hair", ", in front of a plain wall"),
    ("a girl with red hair", ", at the beach, rain"),
    ("a woman with brown hair", ", hands on hips, in the mountains, sunset"),
    ("a girl with black hair", ", stairs, snow"),
    ("a woman", ", in a forest, rainy day"),
    ("a girl with braided brown hair", ", in a living room"),
    ("a woman with curly black hair", " waving, in a field of flowers, sunset"),
    ("a girl with blonde hair", ", city street, snow"),
    ("a woman with red hair", ", at the beach, at night"),
    ("a girl with grey hair", ", arms raised, mountains, rain"),
    ("a woman with brown hair", " standing on a set of stairs, at night"),
    ("a girl with red hair", ", forest, sunny day"),
    ("a woman with black hair", ", plain background"),
    ("a girl", " waving, city street, rainy day"),
    ("a woman with blonde hair", ", mountains, snow"),
    ("a girl with brown hair", ", flower field, at night"),
)
_DISTRIBUTION = (
    ("a woman", " standing, city street, sunny day"),
    ("portrait of a woman", ", in front of a plain wall"),
    ("a girl", " standing, in front of a plain wall"),
    ("a mannequin", ", plain background"),
    ("upper body of a girl", ", forest, sunny day"),
    ("a woman", " sitting on a bench, in a living room"),
)
_COMPOSITION = (
    ("a man with black hair", ", city street, sunny day"),
    ("a boy with brown hair", ", forest, sunny day"),
    ("a doll", ", in a living room"),
    ("a mannequin", ", in a field of flowers, sunset"),
    ("a man with grey hair and glasses", " waving, mountains, snow"),
    ("lower body of a woman", ", stairs, sunny day"),
    ("a boy with spiky red hair", ", arms raised, at the beach, sunset"),
    ("close-up of a man", ", in front of a plain wall"),
)
_AGAIN = (
    ("a woman with curly brown hair", ", on a city street, clear day"),
    ("a girl with blonde hair in a bun", " waving, on a beach, sea, evening sky"),
    ("a woman", ", green trees, forest, winter, snow"),
    ("a girl with long black hair", " sitting, living room, sofa, window"),
    ("a woman with grey hair", ", mountains in the background, blue sky"),
    ("a girl with braided red hair", ", flowers, at sunset"),
    ("a woman with long blonde hair", ", a street with buildings, night sky, moon"),
    ("a girl with brown hair and glasses", ", wood fence, green trees, in the rain"),
    ("a man with short brown hair", ", on a beach, sea, blue sky"),
    ("a boy", ", hands on hips, in the mountains, snowing"),
    ("a doll", ", in front of a plain wall"),
    ("upper body of a woman with black hair", ", in a forest, sunset"),
)
_NEIGHBOURS = (
    "a woman wearing a red dress, city street, sunny day",
    "a girl wearing a blue skirt, at the beach, sunset",
    "a woman wearing a green coat, forest, snow",
    "a girl wearing a purple dress, in a field of flowers, sunny day",
    "a woman wearing a {noun}, in front of a plain wall",
    "a girl with black hair, stairs, sunny day",
    "a woman wearing a yellow dress, in a living room",
    "a girl wearing an orange skirt, mountains, sunset",
    "a woman wearing a pink coat, city street, at night",
    "a girl wearing a blue striped sweater, forest, rain",
    "a mannequin wearing a green dress, plain wall",
    "a woman with red hair, mountains, snow",
)
_UNRELATED = (
    "a man wearing a blue hoodie, city street, rain",
    "a boy wearing a red t-shirt, mountains, sunny day",
    "a man wearing a black coat, forest, snow",
    "a boy wearing orange overalls, at the beach, sunset",
    "a man wearing a green striped sweater, in a living room",
    "a mannequin wearing a pink t-shirt, plain wall",
    "a boy wearing a yellow hoodie, flower field, sunny day",
    "a man wearing purple overalls, stairs, at night",
    "a doll wearing a yellow t-shirt, in a living room",
    "a man wearing a red striped sweater sitting on a bench, city street, snow",
    "portrait of a boy wearing a black hoodie, beach, rain",
    "legs of a man wearing blue overalls, mountains, sunset",
)

VERSION = "tiny"


def _lines() -> Lines:
    made: list[Prompt] = []
    for set, pairs in {"A": _DISTRIBUTION, "B": _SCENES, "C": _COMPOSITION, "G": _AGAIN}.items():
        for i, (who, rest) in enumerate(pairs, start=1):
            made.append(_prompt(f"{set}{i:02d}", set, "trigger", who, rest))
    for i, (who, rest) in enumerate(_SCENES[:STANDARD_SCENES], start=1):
        for role in ("class", "wrong", "none"):
            made.append(_prompt(f"D{i:02d}-{role}", "D", role, who, rest, group=f"B{i:02d}"))
    for set, texts in {"E": _NEIGHBOURS, "F": _UNRELATED}.items():
        for i, text in enumerate(texts, start=1):
            id, role = f"{set}{i:02d}", "none" if set == "E" else "drift"
            made.append(_made(id=id, set=set, group=id, role=role, text=text, context=text))
    return tuple(sorted(made, key=lambda prompt: prompt.set or ""))


def _prompt(id: str, set: str, role: str, who: str, rest: str, *, group: str = "") -> Prompt:
    scene = f"{who}{rest}"
    text = {
        "trigger": f"{{trigger}}, {who} wearing traditional {{trigger}}{rest}",
        "class": f"{who} wearing {{describes}}{rest}",
        "wrong": f"{{wrong}}, {who} wearing traditional {{wrong}}{rest}",
        "none": scene,
    }[role]
    return _made(id=id, set=set, group=group or id, role=role, text=text, context=scene)


def _made(**values: Any) -> Prompt:
    return Prompt.model_validate(values)


LINES: dict[str, Lines] = {"garment": _lines()}
