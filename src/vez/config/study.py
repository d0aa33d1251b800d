"""The tables that say what is drawn and compared: prompts, sampling, studies."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vez.config.table import PLACEHOLDERS, Name, Table, Text, check_placeholders
from vez.config.variant import Variant
from vez.config.vary import spread

Checkpointing = Literal["none", "selective", "whole"]
Precision = Literal["fp32", "bf16", "fp16"]
Quantize = Literal["none", "int8"]


class Sampling(Table):
    """How the images that are scored are drawn; the same for every arm."""

    steps: int = Field(default=20, ge=1, le=1000)
    """Steps of the solver."""
    cfg: float = Field(default=7.5, ge=1)
    """Classifier-free guidance; 1 is none."""
    solver: Literal["dpm++2m", "ddim"] = "dpm++2m"
    """The solver; both are deterministic."""
    profile: Literal["probe", "quick", "standard", "thorough", "confirm"] | None = None
    """How much of the suite: 0, 16, 200, 400, 48 images an arm; absent: standard, of an own suite all of it."""
    seeds: int = Field(default=4, ge=1)
    """Images per arm of each prompt of your own."""
    first_seed: int = Field(default=0, ge=0)
    """Number of the first noise; a later one gives every prompt other noises."""
    checkpoints: Literal["last", "all"] | tuple[int, ...] = "last"
    """Which of a run's saved LoRAs are drawn: the last, all that save_every kept, or those of these steps."""
    strengths: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """Strengths at which each is drawn."""
    size: int | None = Field(default=None, ge=64, le=2048, multiple_of=8)
    """Side of the images in pixels; absent: the base's own."""
    batch: int = Field(default=16, ge=1)
    """Images drawn at a time."""
    negative: str = ""
    """The negative prompt."""

    @model_validator(mode="after")
    def _sweep_is_one(self) -> Self:
        if len(set(self.strengths)) != len(self.strengths) or not all(0 <= s <= 4 for s in self.strengths):
            raise ValueError(f"strengths are different numbers from 0 to 4, not {list(self.strengths)}")
        if isinstance(self.checkpoints, tuple):
            steps = self.checkpoints
            if not steps or len(set(steps)) != len(steps) or min(steps) < 1:
                raise ValueError(f'checkpoints are "last", "all" or different steps from 1 on, not {list(steps)}')
        return self


class Prompt(Table):
    """One text to draw. Prompts of one group ask for one scene with the trigger, with its description, without both."""

    text: Text
    """The prompt; {trigger}, {noun}, {describes} and {wrong} (a wrong trigger as long as yours) are filled in."""
    role: Literal["trigger", "class", "wrong", "none", "drift"] = "trigger"
    """How the concept is asked for: by its trigger · class: its description · wrong: another made-up word · none: not
    at all, the scene alone · drift: not at all, something unrelated."""
    set: Literal["A", "B", "C", "D", "E", "F", "G", "user"] | None = None
    """The set of the suite it stands in (docs/evaluate.md); absent: user, and in a suite of one's own by its role."""
    context: str = ""
    """What the prompt asks for besides the concept ("in the snow")."""
    group: str = ""
    """The trigger test it belongs to; absent: one of its own."""
    seeds: int | None = Field(default=None, ge=1)
    """Images per arm; absent: sampling.seeds."""
    id: Name | Literal[""] = ""
    """Its name in file names; absent: made of its place and role."""

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        check_placeholders(self.text, known=(*PLACEHOLDERS, "wrong"))
        check_placeholders(self.context)
        return self


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
    sample_every: int | None = Field(default=None, ge=1)
    """Steps between pictures drawn while it trains; absent: none (kohya: sample_every_n_steps)."""
    sample_prompts: tuple[Text, ...] = ()
    """What these show; absent: the first three prompts that call the trigger (kohya: sample_prompts)."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the events of training go besides events.jsonl; needs the extra of that name (kohya: log_with)."""
    variant: dict[Name, Variant] = Field(min_length=1)
    """The variants by name."""
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """A search: settings and the values to try, as { rank = [4, 16], lr_unet = [5e-5, 1e-4] }, in every variant."""
    pick: int | None = Field(default=None, ge=1)
    """How many of the combinations of vary are tried, spread evenly; absent: all."""
    controls: tuple[Literal["shuffled", "class", "random"], ...] = ()
    """LoRAs that cannot have learned the concept, made besides to see what the scores mean on this data: shuffled: the
    captions of others · class: the base's own pictures of the noun · random: of random numbers of the same norms."""
    controls_of: Name | None = None
    """The variant whose setting they take; absent: the first."""
    suite: Literal["v1", "tiny", "own"] | None = None
    """What is drawn to compare them: v1: vez's prompts · tiny: the same in words that the base "tiny" knows · own: only
    prompts; absent: v1, for "tiny" its own."""
    prompts: tuple[Prompt, ...] = ()
    """Prompts of your own; they are added to the suite, and are all of it where it is own."""
    sampling: Sampling = Sampling()
    """How it is drawn."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """Of LoRAs of which none beats the other in everything, what counts: 1 the concept alone, 0 the rest of the prompt
    alone."""
    looks: int = Field(default=1, ge=1, le=5)
    """How often the scores are to be read as pictures are added: the 5 % of error are divided among so many looks."""
    precision: Precision = "fp32"
    """What the base computes in: bf16 is faster where the machine has it, fp16 on older GPUs. A LoRA is fp32 always."""
    quantize: Quantize = "none"
    """How the frozen base lies in memory while LoRAs train: as it is computed in, or in 8 bits, int8 (fp8_base)."""
    checkpointing: Checkpointing = "none"
    """Blocks computed again for their gradient: none, transformers (selective) or all (gradient_checkpointing)."""
    memory: float | None = Field(default=None, gt=0)
    """Memory that a pass may take, in GB: checkpointing goes as far as it must to stay below it; absent: as it says."""
    compile: bool = False
    """Whether the base's norms and gates are compiled; needs a C++ compiler, and a while at first (torch_compile)."""
    clip: Text | None = None
    """The CLIP that scores: a hub id, or a folder; absent: openai/clip-vit-base-patch32 (for "tiny", its own)."""
    dino: Text | None = None
    """The DINOv2 that judges likeness: a hub id (facebook/dinov2-base), or a folder; absent: CLIP judges it."""

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
        if self.suite == "own" and not self.prompts:
            raise ValueError('the suite is "own", so it needs prompts; add some, or take the suite "v1"')
        if self.suite != "own" and any(prompt.set not in (None, "user") for prompt in self.prompts):
            raise ValueError('prompts that are added to a suite are of the set "user"; leave set out, or suite = "own"')
        ids = [prompt.id for prompt in self.prompts]
        twice = [id for id in ids if ids.count(id) > 1]
        if twice:
            raise ValueError(f"two prompts have the id {twice[0]!r}; give one of them another")
        if "base" in self.variant:
            raise ValueError('no variant may be called "base": that name is the arm without a LoRA')
        return self

    @model_validator(mode="after")
    def _controls_can_be_made(self) -> Self:
        if self.controls_of is not None and not self.controls:
            raise ValueError("controls_of goes with controls, which lists what to make; add it, or leave it out")
        if not self.controls:
            return self
        if len(set(self.controls)) != len(self.controls):
            raise ValueError("controls has one twice; leave one out")
        if self.controlled not in self.variant:
            raise ValueError(f"controls_of is {self.controls_of!r}; known variants are {', '.join(self.variant)}")
        if self.controlled.startswith("control-"):
            raise ValueError(f'controls are called "control-…"; give the variant {self.controlled!r} another name')
        if self.sampling.profile == "probe":
            raise ValueError("controls show in drawn pictures, and the profile probe draws none; take quick")
        return self

    @property
    def controlled(self) -> str:
        """The variant that the trained controls are made after: as given, or the first."""
        return self.controls_of or next(iter(self.variant))

    def steps_of(self, variant: Variant, pictures: int) -> int:
        """Optimizer steps of one run of ``variant`` over ``pictures`` training pictures (a last torn batch counts)."""
        if self.steps is not None:
            return self.steps
        shown = self.images_seen if self.images_seen is not None else (self.epochs or 0) * self.repeats * pictures
        return max(1, -(-shown // variant.per_step))
