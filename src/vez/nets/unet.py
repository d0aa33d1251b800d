"""The U-Net of Stable Diffusion 1.x, 2.x and XL (Rombach et al. 2022; Podell et al. 2023)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vez.errors import BaseModelError
from vez.nets.attention import Attention
from vez.nets.blocks import Downsample, Resnet, Upsample
from vez.nets.settings import MOST, WIDEST, Fields

DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_PERIOD = 10_000.0  # of the slowest sine that tells the time
_TIME_IDS = 6  # heights, widths and corners that SDXL is told
# What other U-Nets have otherwise; the first value is what an absent field means. Channels that come in are
# `vez.family`'s to judge, which knows what such a base is for.
_ONLY: dict[str, tuple[Any, ...]] = {
    "out_channels": (4,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0,),
    "dual_cross_attention": (False,),
    "only_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
    "attention_type": ("default",),
    "num_attention_heads": (None,),
    "reverse_transformer_layers_per_block": (None,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "class_embeddings_concat": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "addition_embed_type": (None, "text_time"),
}


@dataclass(frozen=True)
class UNetConfig:
    """What differs between the U-Nets of the families, by the names of the published configurations."""

    sample_size: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    transformer_layers_per_block: tuple[int, ...]
    cross_attention_dim: int
    attention_head_dim: tuple[int, ...]
    """Heads of each level, in spite of its name."""
    norm_num_groups: int
    norm_eps: float
    use_linear_projection: bool
    upcast_attention: bool
    addition_embed_type: str | None
    addition_time_embed_dim: int | None
    projection_class_embeddings_input_dim: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The configuration in a file's words. Raises BaseModelError for what vez does not build."""
        fields = Fields(config, what="this U-Net")
        fields.only(**_ONLY)
        widths = fields.numbers("block_out_channels", (320, 640, 1280, 1280))
        levels = len(widths)
        found = cls(
            sample_size=fields.number("sample_size", 64) if config.get("sample_size") else 64,
            block_out_channels=widths,
            layers_per_block=fields.number("layers_per_block", 2, most=16),
            down_block_types=fields.words("down_block_types", (DOWN[0],) * 3 + (DOWN[1],), DOWN, levels=levels),
            up_block_types=fields.words("up_block_types", (UP[1],) + (UP[0],) * 3, UP, levels=levels),
            transformer_layers_per_block=fields.each("transformer_layers_per_block", 1, levels=levels, most=MOST),
            cross_attention_dim=fields.number("cross_attention_dim", 1280),
            attention_head_dim=fields.each("attention_head_dim", 8, levels=levels),
            norm_num_groups=fields.number("norm_num_groups", 32),
            norm_eps=fields.fraction("norm_eps", 1e-5),
            use_linear_projection=fields.flag("use_linear_projection", False),
            upcast_attention=fields.flag("upcast_attention", False),
            addition_embed_type=config.get("addition_embed_type"),
            addition_time_embed_dim=fields.maybe("addition_time_embed_dim"),
            projection_class_embeddings_input_dim=fields.maybe(
                "projection_class_embeddings_input_dim", most=2 * WIDEST
            ),
        )
        if any(width % found.norm_num_groups for width in widths):
            raise fields.refused("norm_num_groups", f"numbers that divide all of its channels ({widths})")
        if any(width % heads for width, heads in zip(widths, found.attention_head_dim, strict=True)):
            raise fields.refused("attention_head_dim", f"numbers of heads that divide its channels ({widths})")
        if widths[0] % 2:
            raise fields.refused("block_out_channels", "an even number of channels first")
        if found.addition_embed_type:
            steps, total = found.addition_time_embed_dim, found.projection_class_embeddings_input_dim
            if not steps or steps % 2:
                raise fields.refused("addition_time_embed_dim", "an even number there for SDXL's sizes")
            if not total or total <= _TIME_IDS * steps:
                raise fields.refused("projection_class_embeddings_input_dim", f"more than {_TIME_IDS * steps} there")
        return found


def sinusoids(times: Tensor, width: int) -> Tensor:
    """Numbers (…) as cosines and sines of ``width``/2 frequencies each, (…, width) fp32 (Ho et al. 2020)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times[..., None].float() * torch.exp(-math.log(_PERIOD) * steps / half)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        out: Tensor = self.linear_2(self.act(self.linear_1(x)))
        return out


class GEGLU(nn.Module):
    """One half of a projection times GELU of the other (Shazeer 2020)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    @staticmethod
    def gated(both: Tensor) -> Tensor:
        """(…, 2·out) -> (…, out)."""
        value, gate = both.chunk(2, dim=-1)
        return value * F.gelu(gate)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return self.gated(self.proj(x))


class FeedForward(nn.Module):
    """To four times the width, gated, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The place between them is a dropout's in the published layout.
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, C)."""
        out: Tensor = self.net[2](self.net[0](x))
        return out


class TransformerBlock(nn.Module):
    """Cells ask each other, then the caption's tokens, then each itself."""

    def __init__(self, width: int, heads: int, text: int, *, exact: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads, exact=exact)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, other=text, exact=exact)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """(N, h·w, C) and (N, T, D) -> (N, h·w, C)."""
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), text) + x
        out: Tensor = self.ff(self.norm3(x)) + x
        return out


class Transformer(nn.Module):
    """A picture's cells as tokens through transformer blocks, beside a shortcut."""

    def __init__(self, width: int, heads: int, depth: int, config: UNetConfig) -> None:
        super().__init__()
        self.linear = config.use_linear_projection
        self.norm = nn.GroupNorm(config.norm_num_groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width) if self.linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads, config.cross_attention_dim, exact=config.upcast_attention)
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width) if self.linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """(N, C, h, w) and (N, T, D) -> (N, C, h, w)."""
        y = self.norm(x)
        if not self.linear:
            y = self.proj_in(y)
        y = y.permute(0, 2, 3, 1).flatten(1, 2)  # (N, h·w, C)
        if self.linear:
            y = self.proj_in(y)
        for block in self.transformer_blocks:
            y = block(y, text)
        if self.linear:
            y = self.proj_out(y)
        y = y.mT.reshape(x.shape).contiguous()
        out: Tensor = (y if self.linear else self.proj_out(y)) + x
        return out


class Level(nn.Module):
    """One level of either way: ResNets, each with a transformer behind it where the level has them, and a sampler."""

    def __init__(
        self, widths: list[tuple[int, int]], level: int, config: UNetConfig, *, attends: bool, sampler: str
    ) -> None:
        super().__init__()
        time = 4 * config.block_out_channels[0]
        groups, eps = config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList(Resnet(a, b, time=time, groups=groups, eps=eps) for a, b in widths)
        width = widths[-1][1]
        if attends:
            heads, depth = config.attention_head_dim[level], config.transformer_layers_per_block[level]
            self.attentions = nn.ModuleList(Transformer(width, heads, depth, config) for _ in widths)
        self.attends = attends
        if sampler == "downsamplers":
            self.downsamplers = nn.ModuleList([Downsample(width, padding=1)])
        elif sampler == "upsamplers":
            self.upsamplers = nn.ModuleList([Upsample(width)])
        self.samples = bool(sampler)

    def forward(self, x: Tensor, n: int, time: Tensor, text: Tensor) -> Tensor:
        """The n-th ResNet, and what stands behind it."""
        x = self.resnets[n](x, time)
        if self.attends:
            x = self.attentions[n](x, text)
        return x


class Middle(nn.Module):
    """ResNet, transformer, ResNet at the coarsest level."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width, time = config.block_out_channels[-1], 4 * config.block_out_channels[0]
        groups, eps = config.norm_num_groups, config.norm_eps
        heads, depth = config.attention_head_dim[-1], config.transformer_layers_per_block[-1]
        self.attentions = nn.ModuleList([Transformer(width, heads, depth, config)])
        self.resnets = nn.ModuleList(Resnet(width, width, time=time, groups=groups, eps=eps) for _ in range(2))

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        x = self.attentions[0](self.resnets[0](x, time), text)
        out: Tensor = self.resnets[1](x, time)
        return out


class UNet(nn.Module):
    """Noisy latents, the time and a caption to what the base predicts."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        first, last = widths[0], len(widths) - 1
        self.conv_in = nn.Conv2d(4, first, 3, padding=1)
        self.time_embedding = TimeEmbedding(first, 4 * first)
        if config.projection_class_embeddings_input_dim and config.addition_embed_type:
            self.add_embedding = TimeEmbedding(config.projection_class_embeddings_input_dim, 4 * first)
        skips, width, down = [first], first, []
        for i, (kind, out) in enumerate(zip(config.down_block_types, widths, strict=True)):
            pairs = [(width if j == 0 else out, out) for j in range(config.layers_per_block)]
            sampler = "downsamplers" if i < last else ""
            down.append(Level(pairs, i, config, attends=kind == DOWN[0], sampler=sampler))
            skips += [out] * (config.layers_per_block + (i < last))
            width = out
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = Middle(config)
        up = []
        for i, kind in enumerate(config.up_block_types):
            pairs = []
            for _ in range(config.layers_per_block + 1):
                pairs.append((width + skips.pop(), widths[last - i]))
                width = widths[last - i]
            sampler = "upsamplers" if i < last else ""
            up.append(Level(pairs, last - i, config, attends=kind == UP[0], sampler=sampler))
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=config.norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(first, 4, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | int,
        text: Tensor,
        *,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """x (N, 4, h, w), timesteps (N,) or one for all, text (N, T, D) -> (N, 4, h, w).

        ``pooled`` (N, P) and ``sizes`` (N, 6) are what SDXL is told besides; both or none, as the U-Net is built.
        """
        time = self.time(x, timesteps, pooled=pooled, sizes=sizes)
        x = self.conv_in(x)
        skips = [x]
        level: Any
        for level in self.down_blocks:
            for n in range(len(level.resnets)):
                x = level(x, n, time, text)
                skips.append(x)
            if level.samples:
                x = level.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, time, text)
        for level in self.up_blocks:
            for n in range(len(level.resnets)):
                x = level(torch.cat([x, skips.pop()], dim=1), n, time, text)
            if level.samples:
                x = level.upsamplers[0](x, tuple(skips[-1].shape[2:]))
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out

    def time(self, x: Tensor, timesteps: Tensor | int, *, pooled: Tensor | None, sizes: Tensor | None) -> Tensor:
        """What every ResNet is told, activated: the time, and SDXL's pooled text and sizes, (N, 4·C)."""
        config = self.config
        times = torch.as_tensor(timesteps, device=x.device).expand(len(x))
        embedded: Tensor = self.time_embedding(sinusoids(times, config.block_out_channels[0]).to(x.dtype))
        if config.addition_embed_type:
            if pooled is None or sizes is None:
                raise BaseModelError("an SDXL U-Net is told sizes and a pooled text, and got none")
            told = sinusoids(sizes, config.addition_time_embed_dim or 0).flatten(1)
            embedded = embedded + self.add_embedding(torch.cat([pooled, told], dim=-1).to(embedded.dtype))
        return F.silu(embedded)
