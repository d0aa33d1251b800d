"""The tables of vez.toml: frozen pydantic models that refuse unknown keys; the text under a field is its documentation.

`load` reads the file; every mistake becomes one `ConfigError` sentence that names the key and what may stand there.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from vez.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # names become folder and file names
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
CheckName = Literal["unreadable", "tiny", "blurred", "dark", "light", "odd-aspect", "exact-duplicate", "near-duplicate"]
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Project(_Table):
    """The concept, and the base that is to learn it."""

    base: Text
    """The model trained on: a hub id, a diffusers folder, or "tiny" (the one in the package)."""
    trigger: Text
    """The trigger word: a made-up word that calls the concept."""
    noun: Text
    """The class noun: what stands beside the trigger ("folk costume")."""
    describes: Text
    """What CLIP is asked instead of the trigger ("traditional Serbian folk costume")."""

    def expand(self, text: str) -> str:
        """``text`` with {trigger}, {noun} and {describes} filled in."""
        words = {"trigger": self.trigger, "noun": self.noun, "describes": self.describes}
        return _PLACEHOLDER.sub(lambda match: words.get(match[1], match[0]), text)


class Rule(_Table):
    """One replacement in the machine captions; whole words only, whatever their case."""

    find: Text
    """The words looked for."""
    replace: str
    """What stands in their place; {trigger}, {noun} and {describes} are filled in."""

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        _check_placeholders(self.replace)
        return self


class Checks(_Table):
    """When a picture is worth a finding. Findings drop nothing by themselves (see Dataset.drop)."""

    blurred: float = Field(default=0.5, ge=0, le=1)
    """Blur of a picture's sharpest parts at the training resolution, 0 to 1; above it the picture is blurred."""
    dark: float = Field(default=0.3, ge=0, le=1)
    """A picture whose brightest 2 % do not reach this is dark (0 black, 1 white)."""
    light: float = Field(default=0.8, ge=0, le=1)
    """A picture whose darkest 2 % all lie above this is light (0 black, 1 white)."""
    aspect: float = Field(default=2.5, ge=1)
    """Longest side over shortest; above it a square crop loses most of the picture."""
    near_duplicate: float = Field(default=0.12, ge=0, le=1)
    """Share of differing dHash bits; at or below it two pictures (or one and the other mirrored) are near-duplicate."""


class Dataset(_Table):
    """One version of the dataset: a folder of pictures and how it becomes training data."""

    images: Path
    """Folder of pictures (jpg, png, webp), relative to vez.toml; they are read and never changed."""
    captions: Path | None = None
    """Folder of hand captions, <stem>.txt for a picture <stem>.jpg; a hand caption is used as it stands."""
    held_out: int = Field(default=0, ge=0)
    """Pictures kept from training, for validation and for the similarity score."""
    resolution: int = Field(default=512, ge=64, le=2048, multiple_of=8)
    """Side of the square training pictures, in pixels."""
    captioner: Text = "blip"
    """What writes the machine captions: "blip" (the base's own), a hub id, or a folder."""
    rules: tuple[Rule, ...] = ()
    """Replacements in the machine captions, applied in order."""
    prefix: bool = True
    """Begin every machine caption with "<trigger>, "."""
    drop: tuple[CheckName, ...] = ("unreadable", "exact-duplicate")
    """Findings that leave a picture out; unreadable pictures are always left out."""
    checks: Checks = Checks()
    """Thresholds of the checks."""


class Variant(_Table):
    """One named setting of a LoRA."""

    dataset: Name
    """The dataset it learns from."""
    batch: int = Field(default=1, ge=1)
    """Pictures per optimizer step."""
    rank: int = Field(default=32, ge=1, le=1024)
    """Rank of the LoRA (kohya: network_dim)."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale of the LoRA is alpha/rank (kohya: network_alpha); absent: the rank."""
    lr_unet: float = Field(default=1e-4, ge=0)
    """Learning rate of the U-Net's LoRA; 0 leaves the U-Net alone."""
    lr_text: float = Field(default=5e-5, ge=0)
    """Learning rate of the text encoder's LoRA; 0 leaves the text encoder alone."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rates rise from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """What the learning rates do after the warm-up: stay, or fall to 0 along a cosine or a line."""
    clip_grad: float = Field(default=1.0, ge=0)
    """Largest gradient norm; 0 clips nothing."""
    min_snr: float | None = Field(default=None, gt=0)
    """Gamma of the Min-SNR loss weights; absent: every timestep weighs the same."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that are trained without their caption."""

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.lr_unet == 0 and self.lr_text == 0:
            raise ValueError("lr_unet and lr_text are both 0, so nothing would be trained; set one of them")
        return self

    @property
    def scale_alpha(self) -> float:
        """Alpha, or the rank where none is given."""
        return float(self.rank) if self.alpha is None else self.alpha


class Sampling(_Table):
    """How the images that are scored are drawn; the same for every arm."""

    steps: int = Field(default=20, ge=1, le=1000)
    """Steps of the solver."""
    cfg: float = Field(default=7.5, ge=1)
    """Classifier-free guidance; 1 is none."""
    solver: Literal["dpm++2m", "ddim"] = "dpm++2m"
    """The solver; both are deterministic."""
    seeds: int = Field(default=4, ge=1)
    """Images per prompt and arm."""
    size: int | None = Field(default=None, ge=64, le=2048, multiple_of=8)
    """Side of the images in pixels; absent: the base's own."""
    batch: int = Field(default=16, ge=1)
    """Images drawn at a time."""
    negative: str = ""
    """The negative prompt."""


class Prompt(_Table):
    """One text to draw. Prompts of one group ask for one scene with the trigger, with its description, without both."""

    text: Text
    """The prompt; {trigger}, {noun} and {describes} are filled in."""
    role: Literal["trigger", "class", "none", "drift"] = "trigger"
    """trigger: calls the concept by its trigger · class: by its description · none: scene alone · drift: unrelated."""
    context: str = ""
    """What the prompt asks for besides the concept ("in the snow")."""
    group: str = ""
    """The trigger test it belongs to; absent: one of its own."""
    id: Name | Literal[""] = ""
    """Its name in file names; absent: made of its place and role."""

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        _check_placeholders(self.text)
        return self


def _check_placeholders(text: str) -> None:
    for word in _PLACEHOLDER.findall(text):
        if word not in ("trigger", "noun", "describes"):
            raise ValueError(f"{{{word}}} cannot be filled in; only {{trigger}}, {{noun}} and {{describes}} can")


# Scenes after DreamBooth's prompt list (Ruiz et al. 2023, supplementary): what is asked for besides the concept. Eight,
# since with fewer four LoRAs could never be told from the base: a sign-flip test's least p is 2/2^n (metrics.stats).
_SCENES = (
    "in the snow",
    "on the beach",
    "in a city street",
    "in a wheat field",
    "in a library",
    "in front of a mountain",
    "in a kitchen",
    "at night",
)
_UNRELATED = ("a photo of a red car", "a photo of a cat", "a bowl of fruit on a table", "a portrait of a man")


def default_prompts() -> tuple[Prompt, ...]:
    """The prompts of a study that names none: eight scenes in three roles each, and four unrelated ones."""
    prompts: list[Prompt] = []
    for i, scene in enumerate(_SCENES, start=1):
        words = {"context": scene, "group": f"scene{i}"}
        prompts += [
            Prompt(text=f"a photo of {{trigger}} {{noun}} {scene}", role="trigger", id=f"scene{i}-trigger", **words),
            Prompt(text=f"a photo of {{describes}} {scene}", role="class", id=f"scene{i}-class", **words),
            Prompt(text=f"a photo {scene}", role="none", id=f"scene{i}-none", **words),
        ]
    for i, text in enumerate(_UNRELATED, start=1):
        prompts.append(Prompt(text=text, role="drift", context=text, group=f"drift{i}", id=f"drift{i}"))
    return tuple(prompts)


class Study(_Table):
    """Several variants over the same base, each trained once per seed, sampled and scored alike."""

    steps: int | None = Field(default=None, ge=1)
    """Length of a run in optimizer steps."""
    images_seen: int | None = Field(default=None, ge=1)
    """Length of a run in pictures shown: steps = images_seen ÷ batch, so variants of any batch see equally many."""
    epochs: int | None = Field(default=None, ge=1)
    """Length of a run in passes over the dataset (each picture `repeats` times)."""
    repeats: int = Field(default=1, ge=1)
    """How often an epoch shows each picture; only with epochs."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Training seeds; each variant is trained once per seed."""
    save_every: int | None = Field(default=None, ge=1)
    """Steps between saved checkpoints; absent: only the last is kept."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between losses on the held-out pictures; absent: none."""
    variant: dict[Name, Variant] = Field(min_length=1)
    """The variants by name."""
    prompts: tuple[Prompt, ...] = Field(default_factory=default_prompts, min_length=1)
    """What is drawn to compare them; absent: vez's own list."""
    sampling: Sampling = Sampling()
    """How it is drawn."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What U-Net and text encoder compute in; bf16 is faster where the machine has it. A LoRA itself is fp32 always."""
    clip: Text | None = None
    """The CLIP that scores: a hub id, or a folder; absent: openai/clip-vit-base-patch32 (for "tiny", its own)."""

    @model_validator(mode="before")
    @classmethod
    def _name_prompts(cls, table: Any) -> Any:
        if not isinstance(table, dict) or not isinstance(table.get("prompts"), (list, tuple)):
            return table
        named: list[Any] = []
        for i, prompt in enumerate(table["prompts"], start=1):
            if isinstance(prompt, str):
                prompt = {"text": prompt}
            if isinstance(prompt, dict):
                id = f"{i:02d}-{prompt.get('role', 'trigger')}"
                blanks = {"group": prompt.get("group") or f"p{i}", "id": prompt.get("id") or id}
                named.append(prompt | blanks)
            else:
                named.append(prompt)
        return {**table, "prompts": named}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        lengths = [name for name in ("steps", "images_seen", "epochs") if getattr(self, name) is not None]
        if len(lengths) != 1:
            given = " and ".join(lengths) or "none of them"
            raise ValueError(f"a study needs exactly one of steps, images_seen and epochs; it has {given}")
        if self.repeats != 1 and self.epochs is None:
            raise ValueError("repeats goes with epochs; leave it out")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different and not negative, not {list(self.seeds)}")
        ids = [prompt.id for prompt in self.prompts]
        twice = [id for id in ids if ids.count(id) > 1]
        if twice:
            raise ValueError(f"two prompts have the id {twice[0]!r}; give one of them another")
        if "base" in self.variant:
            raise ValueError('no variant may be called "base": that name is the arm without a LoRA')
        return self

    def steps_of(self, variant: Variant, pictures: int) -> int:
        """Optimizer steps of one run of ``variant`` over ``pictures`` training pictures (a last torn batch counts)."""
        if self.steps is not None:
            return self.steps
        shown = self.images_seen if self.images_seen is not None else (self.epochs or 0) * self.repeats * pictures
        return max(1, -(-shown // variant.batch))


class Config(_Table):
    """The whole of vez.toml, and the folder it lies in."""

    project: Project
    """[project]"""
    dataset: dict[Name, Dataset] = {}
    """[dataset.<name>]"""
    study: dict[Name, Study] = {}
    """[study.<name>]"""
    root: Path = Field(default=Path("."), exclude=True)
    """Folder of vez.toml: what its paths are relative to. Not a key of the file."""

    @model_validator(mode="after")
    def _datasets_exist(self) -> Self:
        for study_name, study in self.study.items():
            for name, variant in study.variant.items():
                if variant.dataset not in self.dataset:
                    known = ", ".join(self.dataset) or "none"
                    raise ValueError(
                        f"[study.{study_name}.variant.{name}] learns from the dataset {variant.dataset!r}, "
                        f"but there is no [dataset.{variant.dataset}]; known are: {known}"
                    )
        return self


def load(path: Path) -> Config:
    """Read and check a vez.toml; ``Config.root`` becomes its folder. Raises ConfigError (one sentence)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {path}; make one with `vez init`") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if "root" in table:
        raise ConfigError(f'{path} has an unknown key "root"; the folder of the file is the root')
    try:
        return Config.model_validate({**table, "root": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error, table)}") from error


def _sentence(error: ValidationError, table: dict[str, Any]) -> str:
    """The first mistake in words, and how many more there are."""
    details = error.errors(include_url=False)
    # An unknown key first: it is often why another is missing.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _one(first) + more


def _one(detail: ErrorDetails) -> str:
    place = [str(part) for part in detail["loc"] if not str(part).startswith(("literal[", "constrained-", "function-"))]
    if place[-1:] == ["[key]"]:  # pydantic's way of saying that the key itself is wrong
        where = ".".join(place[:-2])
        return f"[{where}]: the name {place[-2]!r} cannot be a folder's; use letters, digits, dot, dash and underscore"
    key, where = (place[-1], ".".join(place[:-1])) if place else ("", "")
    inside = f"[{where}]" if where else "the top of the file"
    match detail["type"]:
        case "extra_forbidden":
            known = _keys(place[:-1])
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
            return f'{inside} has no key "{key}"; {hint}'
        case "missing":
            return f'{inside} lacks the key "{key}"'
        case "value_error":
            return f"{'[' + '.'.join(place) + ']: ' if place else ''}{detail['ctx']['error']}"
        case _:
            said = detail["msg"].replace("Input should", "it should").replace("String should", "it should")
            return f'{inside}: "{key}" cannot be {detail["input"]!r}; {said}'


def _keys(place: list[str]) -> list[str]:
    """The keys that the table at ``place`` may have, found by walking the models along it."""
    model: type[BaseModel] = Config
    for part in place:
        inner = model.model_fields.get(part)
        if inner is not None:
            model = next((m for m in _models(inner.annotation)), model)
    return [name for name in model.model_fields if name != "root"]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
