"""Suite v1: prompts for any concept, in four wordings: a garment, a person, a thing and a style differ in grammar.

Sets and their sizes: A in-distribution 6 · B recontextualisation 24, of which the first 12 are the standard ones ·
C composition 8 · D trigger ablation, made of B · E class drift 6 · F unrelated drift 12 · G confirmation 12, other
words for what B and C ask. The scenes of B follow the idea of DreamBooth's list (Ruiz et al.
2023, supplementary) and of CustomConcept101's prompts for wearables and things; the words are our own.
"""

from vez.suite.wording import Lines, Wording

_SCENES = (
    "in front of the Eiffel Tower",
    "in the snow",
    "in a metro station",
    "on a beach",
    "in a kitchen",
    "in a library",
    "at a night market",
    "in a wheat field",
    "on a busy city street",
    "in front of a mountain lake",
    "in a forest in autumn",
    "on a wooden bridge",
    "in an art museum",
    "in a desert",
    "on a rooftop at sunset",
    "in a greenhouse full of plants",
    "in a small bakery",
    "by a campfire at night",
    "in the rain",
    "on a train platform",
    "in a flower garden",
    "in front of an old castle",
    "in a classroom",
    "on a sailing boat",
)

_AGAIN = (  # for G: what B asks, in other places and words
    "near the Colosseum in Rome",
    "during a snowfall",
    "inside a subway car",
    "at the seaside",
    "in a restaurant kitchen",
    "among old bookshelves",
    "in a street lit by lanterns",
    "in a field of sunflowers",
)

_UNRELATED = (
    "a photo of a red car",
    "a photo of a cat on a sofa",
    "a city street with shops",
    "a landscape with hills and a river",
    "a plate of pasta on a table",
    "a portrait photo of an old man",
    "an oil painting of a ship at sea",
    "a photo of a dog in a park",
    "a white house with a garden",
    "a bowl of fruit",
    "a bicycle against a brick wall",
    "an airplane in the sky",
)

GARMENT = Wording(
    with_concept="a photo of a woman wearing {concept} {scene}",
    without="a woman {scene}",
    plain="a photo of a woman {scene}",
    scenes=_SCENES,
    distribution=(
        ("a photo of a woman wearing {concept}, standing, outdoors", "a woman standing, outdoors"),
        ("a portrait of a woman wearing {concept}, from the waist up", "a portrait of a woman, from the waist up"),
        ("a photo of a woman wearing {concept}, full body, plain background", "a woman, full body, plain background"),
        ("a photo of {concept} on a mannequin", "a mannequin"),
        ("a close-up photo of {concept}", "a close-up photo"),
        ("a photo of a woman wearing {concept}, sitting, indoors", "a woman sitting, indoors"),
    ),
    composition=(
        ("a photo of a man wearing {concept}", "a man"),
        ("a photo of a child wearing {concept}", "a child"),
        ("a photo of two people wearing {concept}", "two people"),
        ("a photo of a dancer wearing {concept}, jumping", "a dancer, jumping"),
        ("a photo of a woman wearing {concept}, seen from behind", "a woman, seen from behind"),
        ("a watercolour painting of a woman wearing {concept}", "a watercolour painting of a woman"),
        ("a photo of a doll wearing {concept}", "a doll"),
        ("a photo of {concept} folded on a wooden table", "a wooden table"),
    ),
    neighbours=(
        "a photo of a woman in a dress",
        "a photo of a man in a suit",
        "a photo of a folk dancer on a stage",
        "a wedding photo of a couple",
        "a photo of a girl in a coat",
        "a photo of a {noun}",
    ),
    unrelated=_UNRELATED,
    again=(
        *((f"a woman dressed in {{concept}} {scene}", f"a woman {scene}") for scene in _AGAIN),
        ("a boy in {concept}, standing", "a boy, standing"),
        ("a group of friends, all in {concept}", "a group of friends"),
        ("an oil painting of a lady in {concept}", "an oil painting of a lady"),
        ("{concept} hanging on a door", "a door"),
    ),
)

CHARACTER = Wording(
    with_concept="a photo of {concept} {scene}",
    without="a person {scene}",
    plain="a photo of a person {scene}",
    scenes=_SCENES,
    distribution=(
        ("a photo of {concept}, standing, outdoors", "standing, outdoors"),
        ("a portrait of {concept}", "a portrait"),
        ("a photo of {concept}, full body, plain background", "full body, plain background"),
        ("a photo of {concept}, smiling", "smiling"),
        ("a close-up photo of {concept}", "a close-up photo"),
        ("a photo of {concept}, sitting, indoors", "sitting, indoors"),
    ),
    composition=(
        ("a photo of {concept} wearing a red coat", "a red coat"),
        ("a photo of {concept} riding a bicycle", "riding a bicycle"),
        ("a photo of {concept} with a dog", "a dog"),
        ("a photo of {concept} reading a newspaper", "reading a newspaper"),
        ("a photo of {concept}, seen from behind", "seen from behind"),
        ("a watercolour painting of {concept}", "a watercolour painting"),
        ("a photo of {concept} as an astronaut", "an astronaut"),
        ("a pencil drawing of {concept}", "a pencil drawing"),
    ),
    neighbours=(
        "a photo of a woman",
        "a photo of a man",
        "a photo of a child with a hat",
        "a photo of two people talking",
        "a portrait of an old woman",
        "a photo of a {noun}",
    ),
    unrelated=tuple("a photo of a horse on a meadow" if "old man" in text else text for text in _UNRELATED),
    again=(
        *((f"a picture of {{concept}} {scene}", f"a person {scene}") for scene in _AGAIN),
        ("{concept} in a green raincoat", "a green raincoat"),
        ("{concept} playing the guitar", "playing the guitar"),
        ("an oil painting of {concept}", "an oil painting"),
        ("{concept} holding an umbrella", "an umbrella"),
    ),
)

OBJECT = Wording(
    with_concept="a photo of {concept} {scene}",
    without="{scene}",
    plain="a photo {scene}",
    scenes=_SCENES,
    distribution=(
        ("a photo of {concept}", ""),
        ("a photo of {concept} on a table", "on a table"),
        ("a photo of {concept}, plain background", "plain background"),
        ("a close-up photo of {concept}", "a close-up photo"),
        ("a photo of {concept} outdoors", "outdoors"),
        ("a photo of {concept} indoors", "indoors"),
    ),
    composition=(
        ("a photo of {concept} next to a cat", "a cat"),
        ("a photo of {concept} held in two hands", "two hands"),
        ("a photo of {concept} under a glass dome", "a glass dome"),
        ("a photo of {concept}, seen from above", "seen from above"),
        ("a photo of {concept}, seen from behind", "seen from behind"),
        ("a watercolour painting of {concept}", "a watercolour painting"),
        ("a pencil drawing of {concept}", "a pencil drawing"),
        ("a toy model of {concept}", "a toy model"),
    ),
    neighbours=(
        "a photo of a {noun}",
        "a photo of two different {noun}s",
        "a drawing of a {noun}",
        "a photo of a shelf full of things",
        "a photo of a shop window",
        "a photo of a table with things on it",
    ),
    unrelated=_UNRELATED,
    again=(
        *((f"a picture of {{concept}} {scene}", scene) for scene in _AGAIN),
        ("{concept} beside a dog", "a dog"),
        ("{concept} carried by a child", "a child"),
        ("an oil painting of {concept}", "an oil painting"),
        ("{concept} in a cardboard box", "a cardboard box"),
    ),
)

_MOTIFS = (
    "the Eiffel Tower",
    "a village in the snow",
    "a metro station",
    "a beach with boats",
    "a kitchen",
    "a library",
    "a night market",
    "a wheat field",
    "a busy city street",
    "a mountain lake",
    "a forest in autumn",
    "a wooden bridge",
    "a woman with a hat",
    "a desert",
    "a cat on a roof",
    "a greenhouse full of plants",
    "a bakery",
    "a campfire at night",
    "a street in the rain",
    "a train",
    "a flower garden",
    "an old castle",
    "a fox",
    "a sailing boat",
)

STYLE = Wording(
    with_concept="{scene} in the style of {concept}",
    without="{scene}",
    plain="{scene}",
    scenes=_MOTIFS,
    distribution=(
        ("a landscape in the style of {concept}", "a landscape"),
        ("a portrait of a woman in the style of {concept}", "a portrait of a woman"),
        ("a house in the style of {concept}", "a house"),
        ("a tree in the style of {concept}", "a tree"),
        ("a still life in the style of {concept}", "a still life"),
        ("an animal in the style of {concept}", "an animal"),
    ),
    composition=(
        ("two people dancing in the style of {concept}", "two people dancing"),
        ("a child with a red balloon in the style of {concept}", "a child with a red balloon"),
        ("a car seen from above in the style of {concept}", "a car seen from above"),
        ("a robot in the style of {concept}", "a robot"),
        ("a blue bird on a green chair in the style of {concept}", "a blue bird on a green chair"),
        ("an empty room in the style of {concept}", "an empty room"),
        ("a crowd in the style of {concept}", "a crowd"),
        ("a bowl of fruit in the style of {concept}", "a bowl of fruit"),
    ),
    neighbours=(
        "a {noun}",
        "a watercolour painting of a village",
        "a pencil drawing of a horse",
        "an oil painting of a storm",
        "an illustration of a child",
        "a poster",
    ),
    unrelated=tuple("a photo of a ship at sea" if "oil painting" in text else text for text in _UNRELATED),
    again=tuple(
        (f"{motif}, made in the style of {{concept}}", motif)
        for motif in (
            "the Colosseum",
            "a mountain hut in winter",
            "a railway station",
            "a harbour",
            "a living room",
            "a bookshop",
            "a market square",
            "a vineyard",
            "an old couple on a bench",
            "a boy with a kite",
            "a spaceship",
            "a vase of flowers",
        )
    ),
)

VERSION = "v1"
LINES: dict[str, Lines] = {
    "garment": GARMENT.lines(),
    "character": CHARACTER.lines(),
    "object": OBJECT.lines(),
    "style": STYLE.lines(),
}
