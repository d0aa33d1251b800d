"""The table of one setting of a LoRA: what it learns from, its shape, its rates, its losses."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vez.config.block import Block, BlockName
from vez.config.table import Name, Table


class Variant(Table):
    """One named setting of a LoRA."""

    dataset: Name
    """The dataset it learns from."""
    batch: int = Field(default=1, ge=1)
    """Pictures that go through the networks at once (kohya: train_batch_size)."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients make one step, which sees batch × accumulate pictures (gradient_accumulation_steps)."""
    rank: int = Field(default=32, ge=1, le=1024)
    """Rank of the LoRA (kohya: network_dim)."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale of the LoRA is alpha/rank (kohya: network_alpha); absent: the rank."""
    conv_rank: int = Field(default=0, ge=0, le=1024)
    """Rank of the LoRA of the U-Net's 3×3 convolutions; above 0 all of its ResNets are adapted (kohya: conv_dim)."""
    conv_alpha: float | None = Field(default=None, gt=0)
    """Their alpha (kohya: conv_alpha); absent: as much of conv_rank as alpha is of rank."""
    resnets: bool = False
    """Adapt the ResNets' 1×1 convolutions and time projections without the 3×3 ones (kohya: conv_dim = 0)."""
    blocks: dict[BlockName, Block] = Field(default_factory=dict)
    """Parts of the U-Net that are treated otherwise, as { "down.1" = { rank = 8 }, up = { lr = 0.5 } } (block_dims)."""
    lr_unet: float = Field(default=1e-4, ge=0)
    """Learning rate of the U-Net's LoRA; 0 leaves the U-Net alone."""
    lr_text: float = Field(default=5e-5, ge=0)
    """Learning rate of the text encoder's LoRA; 0 leaves the text encoder alone."""
    lr_text2: float | None = Field(default=None, ge=0)
    """That of SDXL's second text encoder (kohya: the second text_encoder_lr); absent: lr_text."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""
    optimizer: str = Field(default="adamw", pattern=r"^(adamw|adamw8bit|prodigy|schedulefree|\w+(\.\w+)+)$")
    """adamw, adamw8bit, prodigy, schedulefree, or the dotted name of a torch.optim.Optimizer (optimizer_type)."""
    optimizer_args: dict[str, Any] = Field(default_factory=dict)
    """What it is given besides learning rate and weight decay, as betas = [0.9, 0.99] (kohya: optimizer_args)."""
    lora_plus: float | None = Field(default=None, gt=0)
    """LoRA+: learning rate of up over that of down (kohya: loraplus_lr_ratio); absent: they are the same."""
    warmup: int | float = Field(default=0, ge=0)
    """Steps over which the learning rates rise from 0, or below 1 their share of all (lr_warmup_steps)."""
    schedule: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    """What the learning rates do after the warm-up: stay, or fall (kohya: lr_scheduler)."""
    cycles: int = Field(default=1, ge=1)
    """Falls of the schedule cosine_with_restarts (kohya: lr_scheduler_num_cycles)."""
    power: float = Field(default=1.0, gt=0)
    """Power of the schedule polynomial (kohya: lr_scheduler_power)."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is what is validated and saved; absent: none."""
    scale_weight_norms: float | None = Field(default=None, gt=0)
    """Largest norm that a module's LoRA may add to its weight (kohya: scale_weight_norms); absent: any."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the values between down and up that is dropped in training (kohya: network_dropout)."""
    rank_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Chance of each rank of a module to be left out for a sample (kohya: rank_dropout)."""
    module_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Chance of a module's whole LoRA to be left out for a sample (kohya: module_dropout)."""
    rslora: bool = False
    """Scale alpha/√rank instead of alpha/rank, so that it does not fall with the rank."""
    clip_grad: float = Field(default=1.0, ge=0)
    """Largest gradient norm; 0 clips nothing."""
    min_snr: float | None = Field(default=None, gt=0)
    """Gamma of the Min-SNR loss weights; absent: every timestep weighs the same."""
    debiased: bool = False
    """Weigh the loss by 1/√SNR, or 1/(SNR + 1) for a base that predicts v (kohya: debiased_estimation_loss)."""
    loss: Literal["l2", "l1", "huber", "smooth_l1"] = "l2"
    """Of the error: its square, its size, or the square up to huber_c and the size beyond (kohya: loss_type)."""
    huber_c: float = Field(default=0.1, gt=0, le=1)
    """Where huber and smooth_l1 go over from square to size (kohya: huber_c)."""
    huber_schedule: Literal["constant", "exponential", "snr"] = "snr"
    """How that place goes from 1 at little noise down to huber_c at much; constant: huber_c always."""
    huber_scale: float = Field(default=1.0, gt=0)
    """Times that place, where the schedule is constant or exponential (kohya: huber_scale)."""
    masked: bool = False
    """Count the error only where the dataset's masks are white (kohya: masked_loss)."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that are trained without their caption."""
    caption_dropout_every: int = Field(default=0, ge=0)
    """One of so many passes over the dataset is trained without captions; 0: none (caption_dropout_every_n_epochs)."""
    shuffle_caption: bool = False
    """Put the parts of a caption, between commas, in another order for every sample (kohya: shuffle_caption)."""
    keep_tokens: int = Field(default=0, ge=0)
    """Parts at a caption's beginning that stay there and are never left out; 1 keeps a trigger (kohya: keep_tokens)."""
    tag_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of the other parts that are left out, anew for every sample (kohya: caption_tag_dropout_rate)."""
    wildcards: bool = False
    """Draw for every sample one of a caption's lines, and of {a|b|c} one (kohya: enable_wildcard)."""
    flip: bool = False
    """Mirror half of the samples, drawn at random, with their masks (kohya: flip_aug)."""
    prior: Name | None = None
    """A dataset of the role class: each step sees as many of its pictures too, so that the class stays what it was."""
    prior_weight: float = Field(default=1.0, ge=0)
    """What the loss of those counts beside the concept's (kohya: prior_loss_weight)."""
    preserve: float = Field(default=0.0, ge=0, le=100)
    """What it counts that captions without the trigger give what the base gives; 0: nothing, and no time; about 1."""
    noise_offset: float = Field(default=0.0, ge=0, le=1)
    """Adds this times one random number to all of a channel's noise: darker darks, lighter lights; about 0.05."""
    noise_offset_random: bool = False
    """Draw each sample's offset between 0 and noise_offset (kohya: noise_offset_random_strength)."""
    multires_noise: int = Field(default=0, ge=0, le=16)
    """Coarser grids of noise added, at most; 0 adds none (kohya: multires_noise_iterations)."""
    multires_discount: float = Field(default=0.3, gt=0, le=1)
    """How much of each grid the next coarser one is (kohya: multires_noise_discount)."""
    input_perturbation: float = Field(default=0.0, ge=0, le=1)
    """Adds this times more noise to what the U-Net sees, not to what it is to predict; about 0.1 (ip_noise_gamma)."""
    input_perturbation_random: bool = False
    """Draw each sample's perturbation between 0 and that (kohya: ip_noise_gamma_random_strength)."""

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.lr_unet == 0 and not self.trains_text:
            raise ValueError("lr_unet and lr_text are both 0, so nothing would be trained; set one of them")
        return self

    @model_validator(mode="after")
    def _optimizer_is_one(self) -> Self:
        for key in ("lr", "weight_decay"):
            if key in self.optimizer_args:
                instead = "lr_unet and lr_text" if key == "lr" else key
                raise ValueError(f"optimizer_args holds {key}; set {instead} of the variant")
        unknown = sorted(set(self.optimizer_args) - {"betas", "eps"}) if self.optimizer == "adamw" else []
        if unknown:
            raise ValueError(f"adamw takes betas and eps in optimizer_args, not {unknown[0]}")
        betas = self.optimizer_args.get("betas", [0.9, 0.999])
        if not isinstance(betas, list) or not all(isinstance(b, float) and 0 <= b < 1 for b in betas) or len(betas) < 2:
            raise ValueError(f"betas are numbers from 0 to below 1, as [0.9, 0.999], not {betas}")
        rates = {self.lr_unet, self.lr_text, self.lr_text2 or 0.0} - {0.0}
        factors = {block.lr for block in self.blocks.values()} | {self.lora_plus}
        if self.optimizer == "prodigy" and (len(rates) > 1 or factors - {None, 0.0, 1.0}):
            raise ValueError(
                "prodigy finds one learning rate for all; set lr_unet = lr_text = 1, no lora_plus and no lr of blocks"
            )
        if self.optimizer == "schedulefree" and self.ema is not None:
            raise ValueError("schedulefree averages the weights already; leave ema out")
        return self

    @model_validator(mode="after")
    def _warmup_is_steps_or_share(self) -> Self:
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(f"warmup = {self.warmup} is neither steps nor a share below 1")
        return self

    @model_validator(mode="after")
    def _convolutions_have_a_rank(self) -> Self:
        convolves = self.conv_rank > 0 or any(block.conv_rank for block in self.blocks.values())
        if self.conv_alpha is not None and not convolves:
            raise ValueError("conv_alpha goes with conv_rank, which is 0; set conv_rank, or leave conv_alpha out")
        return self

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder is adapted."""
        return self.lr_text > 0 or bool(self.lr_text2)

    @property
    def adapts_resnets(self) -> bool:
        """Whether the U-Net's ResNets and samplers are adapted (LoCon), as kohya does wherever a conv_dim is given."""
        return self.resnets or self.conv_rank > 0 or any(block.conv_rank for block in self.blocks.values())

    @property
    def per_step(self) -> int:
        """Pictures that one step sees."""
        return self.batch * self.accumulate

    @property
    def scale_alpha(self) -> float:
        """The alpha that the LoRA is trained and saved with: as given, or the rank; for rsLoRA, times √rank.

        The last is rounded to 8 significant bits, which bf16, fp16 and fp32 all hold: every reader gets the same scale.
        """
        alpha = float(self.rank) if self.alpha is None else self.alpha
        if not self.rslora:
            return alpha
        mantissa, exponent = math.frexp(alpha * math.sqrt(self.rank))
        return math.ldexp(round(mantissa * 256), exponent - 8)
