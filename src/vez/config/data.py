"""The tables that say what is learned and from which pictures: project, collecting, datasets."""

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from vez.config.table import PLACEHOLDER, Table, Text, check_placeholders

CheckName = Literal[
    "unreadable",
    "tiny",
    "blurred",
    "dark",
    "light",
    "low-information",
    "upscaled",
    "text",
    "odd-aspect",
    "transparent",
    "place",
    "exact-duplicate",
    "near-duplicate",
    "same-source",
    "same-scene",
]
"""What `vez.images.checks` finds in pictures."""
WordCheckName = Literal[
    "caption-missing",
    "caption-unused",
    "caption-encoding",
    "caption-long",
    "caption-loop",
    "caption-alike",
    "caption-misfit",
    "trigger-missing",
    "trigger-twice",
    "trigger-cut",
    "trigger-known",
    "trigger-ascii",
    "trigger-pieces",
    "noun-missing",
    "fused",
    "unnamed",
    "one-background",
    "one-framing",
    "one-pose",
    "one-author",
    "few-sources",
    "shared-source",
    "licence-missing",
    "no-derivatives",
    "lone-bucket",
    "face",
    "length",
]
"""What `vez.lint` finds in captions, in how they fit the pictures, and in the set as a whole."""
PICTURE_CHECKS: tuple[str, ...] = get_args(CheckName)
WORD_CHECKS: tuple[str, ...] = get_args(WordCheckName)
CropName = Literal["full", "upper", "lower"]


class Project(Table):
    """The concept, and the base that is to learn it."""

    base: Text
    """The model trained on (SD 1.x, 2.x, XL): a hub id, a diffusers folder, a .safetensors file, or "tiny"."""
    vae: Text | None = None
    """Another VAE than the base's: a hub id, a folder or a file (kohya: vae)."""
    tokenizer: Text | None = None
    """Folder or hub id with CLIP's tokenizer, which a single file lacks; absent: openai/clip-vit-large-patch14."""
    prediction: Literal["epsilon", "v"] | None = None
    """What the base predicts, where it does not say so itself (kohya: v_parameterization)."""
    clip_skip: int | None = Field(default=None, ge=1)
    """The text encoder's layer that is read, counted from the end; absent: 1, of SDXL 2 (kohya: clip_skip)."""
    tokens: Literal[75, 150, 225] = 75
    """Longest caption and prompt, in tokens; more than 75 are read in pieces (kohya: max_token_length)."""
    trigger: Text
    """The trigger word: a made-up word that calls the concept."""
    noun: Text
    """The class noun: what stands beside the trigger ("folk costume")."""
    describes: Text
    """What CLIP is asked instead of the trigger ("traditional Serbian folk costume")."""
    lookalikes: tuple[Text, ...] = ()
    """What the concept could be mistaken for, in words, as ["Bulgarian folk costume", "modern dress"]."""
    gallery: Path | None = None
    """Folder of pictures of look-alikes, relative to vez.toml: does what is drawn resemble them more?"""
    kind: Literal["garment", "character", "object", "style"] | None = None
    """What kind of concept it is, for the wording of vez's prompts; absent: they are worded for an object."""
    public: bool = False
    """Pictures or LoRA are to be published: every picture then needs an author and a licence."""

    def expand(self, text: str) -> str:
        """``text`` with {trigger}, {noun} and {describes} filled in."""
        words = {"trigger": self.trigger, "noun": self.noun, "describes": self.describes}
        return PLACEHOLDER.sub(lambda match: words.get(match[1], match[0]), text)


class Collect(Table):
    """How `vez collect` behaves towards other people's servers, and what it accepts from them."""

    contact: str = ""
    """A mail address or page for a server's owner to reach you by; sent with every request, as Wikimedia asks."""
    most_bytes: int = Field(default=50_000_000, ge=1)
    """Largest picture file taken, in bytes."""
    most_pixels: int = Field(default=120_000_000, ge=1)
    """Largest picture taken, in pixels."""
    seconds: float = Field(default=60.0, gt=0)
    """Longest time for one file, in seconds."""
    pause: float = Field(default=1.0, ge=0)
    """Seconds between two requests to one host."""
    retries: int = Field(default=4, ge=0)
    """How often a busy server (429, 503) is asked again, after the time it names; a broken connection twice at most."""
    licences: tuple[Text, ...] = ("cc0", "pdm", "by", "by-sa")
    """Licences taken from Commons and Openverse; nd is left out because a crop is a derivative, nc is left to you."""
    hosts: tuple[Text, ...] = ()
    """Hosts that may have an address that is not public (a museum's own network); all others are refused."""


class Rule(Table):
    """One replacement in the machine captions; whole words only, whatever their case."""

    find: Text
    """The words looked for."""
    replace: str
    """What stands in their place; {trigger}, {noun} and {describes} are filled in."""

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        check_placeholders(self.replace)
        return self


class Override(Table):
    """What is different for one picture's machine captions."""

    rules: tuple[Rule, ...] = ()
    """Replacements besides the dataset's, applied before them."""
    tags: tuple[Text, ...] = ()
    """Words added at the end, besides the dataset's."""
    prefix: bool | None = None
    """Whether the caption begins with the trigger; absent: as the dataset says."""

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        for tag in self.tags:
            check_placeholders(tag)
        return self


class Waiver(Table):
    """A finding that is accepted. It stays in the records, with its reason."""

    check: CheckName | WordCheckName
    """Which finding."""
    file: str = "*"
    """The picture it is about; "*": all of them, or a finding about the whole set."""
    reason: Text
    """Why it is accepted."""


class Exclusion(Table):
    """A picture left out by hand."""

    file: Text
    """The picture."""
    reason: Text
    """Why; the dataset and its comparison with other versions say it."""


class Checks(Table):
    """When a picture is worth a finding. Findings drop nothing by themselves (see Dataset.drop)."""

    blurred: float = Field(default=0.5, ge=0, le=1)
    """Blur of a picture's sharpest parts at the training resolution, 0 to 1; above it the picture is blurred."""
    dark: float = Field(default=0.3, ge=0, le=1)
    """A picture whose brightest 2 % do not reach this is dark (0 black, 1 white)."""
    light: float = Field(default=0.8, ge=0, le=1)
    """A picture whose darkest 2 % all lie above this is light (0 black, 1 white)."""
    information: float = Field(default=1.0, ge=0)
    """Entropy of a picture's brightness in bits (0 to 8); below it there is next to nothing on it."""
    upscaled: float = Field(default=0.55, ge=0, le=1)
    """Share of the finest detail that a picture of its size should have and lacks; above it, it was enlarged."""
    text: float = Field(default=0.0015, ge=0, le=1)
    """Share of a picture covered by what looks like lettering; above it there is a text, a logo or a watermark."""
    aspect: float = Field(default=2.5, ge=1)
    """Longest side over shortest; above it a square crop loses most of the picture."""
    near_duplicate: float = Field(default=0.12, ge=0, le=1)
    """Share of differing dHash bits; at or below it two pictures (or one, mirrored) may be near-duplicate."""
    shifted: float = Field(default=0.97, ge=0, le=1)
    """Best correlation of two pictures over shifts and sizes, one also mirrored; from it on they are near-duplicate."""
    same_scene: float = Field(default=0.95, ge=0, le=1)
    """Cosine of two pictures' CLIP vectors; from it on they show one scene. Only where CLIP's weights are here."""


class Dataset(Table):
    """One version of the dataset: a folder of pictures and how it becomes training data."""

    images: Path
    """Folder of pictures (jpg, png, webp, avif, …), relative to vez.toml; they are read and never changed."""
    role: Literal["concept", "class"] = "concept"
    """concept: shows what is to be learned · class: regularisation pictures of the class noun, without the trigger."""
    captions: Path | None = None
    """Folder of hand captions: <stem>.txt for a picture <stem>.jpg, <stem>.upper.txt for its upper crop."""
    caption_lines: Literal["join", "draw"] = "join"
    """Lines of a hand caption: join: one text · draw: variants with wildcards draw one for each sample."""
    held_out: int = Field(default=0, ge=0)
    """Pictures kept from training, for validation and for the similarity score."""
    resolution: int = Field(default=512, ge=64, le=2048, multiple_of=8)
    """Side of the square training pictures in pixels; with buckets, the square root of their area."""
    buckets: Literal["square", "kohya", "sdxl"] = "square"
    """Shapes of the training pictures: square · kohya: aspect buckets as sd-scripts makes them · sdxl: SDXL's list."""
    crops: tuple[CropName, ...] = Field(default=("full",), min_length=1)
    """Training pictures made of each picture: full, and its upper and lower part where they need no enlarging."""
    random_crops: int = Field(default=1, ge=1, le=32)
    """Places each training picture is cut at, the chosen and others about it; samples draw one (kohya: random_crop)."""
    background: Literal["white", "black", "grey"] | None = None
    """What shows through transparent parts; absent: white, with a finding."""
    masks: Text | None = None
    """Where the subject is, for a masked loss: "alpha" (transparent is not subject), or a folder of <stem>.png."""
    faces: Text | None = None
    """Place the crops by faces: "cascade" (frontal ones, by what comes with the extra), or YuNet's .onnx file."""
    captioner: Text = "blip"
    """Writes the machine captions: "blip" (the base's own), "florence-2", "florence-2-detailed", "wd14", a folder, a
    hub id (owner/name, or owner/name@commit)."""
    rules: tuple[Rule, ...] = ()
    """Replacements in the machine captions, applied in order."""
    tags: tuple[Text, ...] = ()
    """Words added to the end of every machine caption; {trigger}, {noun} and {describes} are filled in."""
    prefix: bool = True
    """Begin every machine caption with "<trigger>, "; never with role "class"."""
    override: dict[str, Override] = Field(default_factory=dict)
    """What is different for single pictures, by file name."""
    drop: tuple[CheckName, ...] = ("unreadable", "exact-duplicate")
    """Findings that leave a picture out; unreadable pictures are always left out."""
    exclude: tuple[Exclusion, ...] = ()
    """Pictures left out by hand."""
    waive: tuple[Waiver, ...] = ()
    """Findings that are accepted; a waived finding drops nothing."""
    checks: Checks = Checks()
    """Thresholds of the checks."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.crops)) != len(self.crops):
            raise ValueError(f"crops names one twice: {list(self.crops)}")
        for tag in self.tags:
            check_placeholders(tag)
        if self.role == "class" and self.held_out:
            raise ValueError('held_out goes with role = "concept": class pictures judge nothing')
        return self
