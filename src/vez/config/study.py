"""The tables that say what is drawn and compared: prompts, sampling, studies."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vez.config.table import Name, Table, Text, check_placeholders
from vez.config.variant import Variant
from vez.config.vary import spread


class Sampling(Table):
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


class Prompt(Table):
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
        check_placeholders(self.text)
        return self


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


class Study(Table):
    """Several variants over the same base, each trained once per seed, sampled and scored alike."""

    steps: int | None = Field(default=None, ge=1)
    """Length of a run in optimizer steps."""
    images_seen: int | None = Field(default=None, ge=1)
    """Length of a run in pictures shown: steps = images_seen ÷ pictures per step, so all see equally many."""
    epochs: int | None = Field(default=None, ge=1)
    """Length of a run in passes over the dataset (each picture `repeats` times)."""
    repeats: int = Field(default=1, ge=1)
    """How often an epoch shows each picture; only with epochs."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Training seeds; each variant is trained once per seed."""
    side_by_side: int | None = Field(default=None, ge=1)
    """Most variants trained in one pass; absent: all that share dataset and batch. Fewer need less memory."""
    save_every: int | None = Field(default=None, ge=1)
    """Steps between saved LoRA files; absent: only the last is kept (kohya: save_every_n_steps)."""
    keep: int | None = Field(default=None, ge=1)
    """How many of those files stay, the newest, besides the last one; absent: all."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between losses on the held-out pictures; absent: none."""
    variant: dict[Name, Variant] = Field(min_length=1)
    """The variants by name."""
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """A search: settings and the values to try, as { rank = [4, 16], lr_unet = [5e-5, 1e-4] }, in every variant."""
    pick: int | None = Field(default=None, ge=1)
    """How many of the combinations of vary are tried, spread evenly; absent: all."""
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

    @model_validator(mode="before")
    @classmethod
    def _spread_variants(cls, table: Any) -> Any:
        if not isinstance(table, dict) or not isinstance(table.get("variant"), dict):
            return table
        vary, pick = table.get("vary"), table.get("pick")
        if vary is None and pick is not None:
            raise ValueError("pick goes with vary, which lists what to pick from; add it, or leave pick out")
        if not isinstance(vary, dict) or not (pick is None or isinstance(pick, int)):
            return table  # the fields' own checks say what is wrong
        return {**table, "variant": spread(table["variant"], vary, pick=pick)}

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
        return max(1, -(-shown // variant.per_step))
