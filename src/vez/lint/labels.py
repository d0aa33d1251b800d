"""What may be seen on a picture, as data: groups of labels, their words in captions, and what CLIP is asked for each.

Of a group's labels one holds. CLIP is asked with several phrases a label, each in several surroundings (Radford et al.
2021, section 3.1.4), because one sentence alone measures its wording. Phrases are spoken in words that a small CLIP may
know; `vez.lint.looks` leaves out those it does not.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

Surroundings = Literal["places", "people"]


@dataclass(frozen=True)
class Label:
    """One thing that may be seen. ``advice`` is what to add where it is rare; empty: it is not worth asking for."""

    name: str
    words: str
    """Words and phrases by which a caption names it, between "|"."""
    phrases: str
    """Phrases for CLIP, between "|"."""
    advice: str = ""

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The phrases for CLIP."""
        return tuple(self.phrases.split("|"))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds the label's words in a caption."""
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, self.words.split('|')))})(?!\w)", re.IGNORECASE)


@dataclass(frozen=True)
class Group:
    """Labels of which one holds.

    ``among`` is what they are asked with: each phrase before every place, or after every person. ``of_people`` groups
    mean something only where people, dolls or mannequins are shown.
    """

    name: str
    plural: str
    among: Surroundings
    of_people: bool
    labels: tuple[Label, ...]

    def named(self, caption: str) -> list[int]:
        """The labels that a caption names."""
        return [i for i, label in enumerate(self.labels) if label.pattern.search(caption)]


_HALF = (
    "upper body|half body|half-length|portrait|bust|waist up|head and shoulders|close-up of a woman|close-up of a girl"
)
FRAMING: Final = Group(
    "framing",
    "framings",
    "places",
    True,
    (
        Label(
            "full",
            "full body|full-body|full length|full-length|head to toe|whole body|whole figure",
            "full body of a person|full length photo of a woman|a girl wearing a dress standing"
            "|a woman wearing a folk costume|a man wearing a coat waving|a girl sitting on a bench"
            "|a doll wearing a dress|a mannequin wearing a coat",
            "the whole figure",
        ),
        Label(
            "half",
            _HALF,
            "upper body of a girl wearing a dress|portrait of a woman wearing a coat|upper body of a man"
            "|upper body of a girl wearing a folk costume|close-up of a girl",
            "half figures (waist up)",
        ),
        Label(
            "detail",
            "lower body|legs of|detail|details|macro|close-up of the|close up of the|hem|feet",
            "lower body of a girl wearing a dress|legs of a woman wearing a skirt|detail of embroidered fabric"
            "|lower body of a girl wearing a folk costume|lower body of a man",
            "details (hem, sleeve)",
        ),
    ),
)
VIEW: Final = Group(
    "view",
    "views",
    "places",
    True,
    (
        Label(
            "front",
            "from the front|front view|facing the camera|facing camera|looking at the camera",
            "a person seen from the front|a person facing the camera|front view of a person",
            "front view",
        ),
        Label(
            "side",
            "from the side|side view|in profile|profile view|three-quarter view",
            "a person seen from the side|a person in profile|side view of a person",
            "side view",
        ),
        Label(
            "back",
            "from behind|back view|from the back|rear view|facing away|back turned",
            "a person seen from behind|a person with their back turned|rear view of a person",
            "back view",
        ),
    ),
)
POSE: Final = Group(
    "pose",
    "poses",
    "places",
    True,
    (
        Label(
            "standing",
            "standing|stands|hands on hips",
            "a girl wearing a dress standing|a man wearing a coat hands on hips|a woman standing",
            "standing",
        ),
        Label(
            "seated",
            "sitting|sits|seated|kneeling",
            "a girl wearing a dress sitting on a bench|a man wearing a coat sitting|a woman sitting",
            "seated",
        ),
        Label(
            "moving",
            "waving|arms raised|raised arms|walking|walks|dancing|dances|running|jumping|spinning",
            "a girl wearing a dress waving|a man wearing a coat arms raised|a woman walking|people dancing",
            "moving (walking, dancing)",
        ),
    ),
)
BACKGROUND: Final = Group(
    "background",
    "backgrounds",
    "people",
    False,
    (
        Label(
            "plain",
            "plain wall|plain background|white background|studio|grey background|black background",
            "plain wall|plain background|white studio background",
        ),
        Label(
            "street",
            "street|city|buildings|town|square|alley",
            "city street|a street with buildings",
            "in a street",
        ),
        Label("forest", "forest|woods|among trees", "forest|in a forest, green trees", "in a forest"),
        Label("water", "beach|sea|seaside|lake|river|shore", "beach|at the beach, sea", "by the sea or a lake"),
        Label("mountains", "mountain|mountains|hills", "mountains|mountains in the background", "in the mountains"),
        Label(
            "field",
            "field|meadow|flower field|flowers|garden|grass",
            "flower field|in a field of flowers|green meadow",
            "in a field or a garden",
        ),
        Label(
            "stairs",
            "stairs|steps|staircase|fence|porch",
            "stairs, wood fence|standing on a set of stairs",
            "on stairs, by a fence",
        ),
        Label(
            "room",
            "room|living room|kitchen|indoors|indoor|hall|museum|church|window",
            "in a living room|living room, sofa, window|museum interior",
            "indoors",
        ),
        Label("stage", "stage|crowd|audience|festival", "on a stage|a crowd at a festival", "on a stage"),
    ),
)
LIGHT: Final = Group(
    "light",
    "lights",
    "people",
    False,
    (
        Label(
            "day",
            "sunny|sunny day|blue sky|clear day|daylight|sunlight",
            "sunny day|blue sky|clear day",
            "in daylight",
        ),
        Label("dusk", "sunset|evening|dusk|golden hour|sunrise", "sunset|evening sky", "at dusk"),
        Label("night", "night|moon", "at night|night sky, moon", "at night"),
        Label("rain", "rain|rainy|cloudy|overcast|grey sky", "rainy day|in the rain", "under a grey sky"),
        Label("snow", "snow|winter|snowing", "winter, snow|snowing", "in snow"),
        Label(
            "indoors",
            "plain wall|plain background|studio|room|indoors|living room|museum",
            "in a living room|room|plain wall|in front of a plain wall",
            "by lamplight",
        ),
    ),
)
WEARER: Final = Group(
    "wearer",
    "wearers",
    "places",
    True,
    (
        Label("woman", "woman|women|lady|bride", "a woman wearing a dress|portrait of a woman", "a woman"),
        Label("man", "man|men|groom", "a man wearing a coat|portrait of a man", "a man"),
        Label("girl", "girl|girls", "a girl wearing a dress|portrait of a girl", "a girl"),
        Label("boy", "boy|boys", "a boy wearing a coat|portrait of a boy", "a boy"),
        Label("doll", "doll|puppet", "a doll wearing a dress|a doll"),
        Label("mannequin", "mannequin|dummy|hanger", "a mannequin wearing a dress|a mannequin"),
    ),
)
_WORN: Final = "dress coat skirt apron vest blouse shirt jacket trousers costume clothes clothing embroidery"
COLOUR: Final = Group(
    "colour",
    "colours of clothing",
    "places",
    True,
    tuple(
        Label(
            colour,
            "|".join([f"in {colour}", f"wearing {colour}", *(f"{colour} {thing}" for thing in _WORN.split())]),
            f"a woman wearing a {colour} dress|a man wearing a {colour} coat",
        )
        for colour in ("red", "blue", "green", "yellow", "white", "black", "purple", "pink")
    ),
)
GROUPS: Final = (FRAMING, VIEW, POSE, BACKGROUND, LIGHT, WEARER, COLOUR)
NUISANCE: Final = (LIGHT, WEARER)
"""Besides background, framing and pose, the groups whose labels are no part of what is to be learned."""
AROUND: Final = ("", "a person, ", "a woman wearing a dress, ", "a man wearing a coat, ", "a folk costume, ")
"""What stands before a background or a light when CLIP is asked for it."""
SOMEBODY: Final = re.compile(
    r"(?<!\w)(?:person|people|child|children|model|dancer|someone|he|she|wom[ae]n|m[ae]n|lady|bride|groom|girls?|boys?"
    r"|dolls?|puppet|mannequins?|wearing|dressed)(?!\w)",
    re.IGNORECASE,
)
"""What names somebody in a caption."""
