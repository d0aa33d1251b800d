"""The VAE of Stable Diffusion: pictures to the moments of their latents, latents to pictures (Rombach et al. 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from vez.nets.attention import Attention
from vez.nets.blocks import Downsample, Resnet, Upsample
from vez.nets.settings import Fields

_EPS = 1e-6
_ONLY: dict[str, tuple[Any, ...]] = {
    "in_channels": (3,),
    "out_channels": (3,),
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "shift_factor": (None, 0, 0.0),
}


@dataclass(frozen=True)
class VaeConfig:
    """What differs between VAEs, by the names of the published configurations."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_num_groups: int
    scaling_factor: float
    mid_block_add_attention: bool
    use_quant_conv: bool
    use_post_quant_conv: bool
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The configuration in a file's words. Raises BaseModelError for what vez does not build."""
        fields = Fields(config, what="this VAE")
        fields.only(**_ONLY)
        widths = fields.numbers("block_out_channels", (64,))
        down, up = ("DownEncoderBlock2D",), ("UpDecoderBlock2D",)
        groups = fields.number("norm_num_groups", 32)
        if any(width % groups for width in widths):
            raise fields.refused("norm_num_groups", f"numbers that divide all of its channels ({widths})")
        return cls(
            block_out_channels=widths,
            layers_per_block=fields.number("layers_per_block", 1, most=16),
            latent_channels=fields.number("latent_channels", 4, most=64),
            norm_num_groups=groups,
            scaling_factor=fields.fraction("scaling_factor", 0.18215),
            mid_block_add_attention=fields.flag("mid_block_add_attention", True),
            use_quant_conv=fields.flag("use_quant_conv", True),
            use_post_quant_conv=fields.flag("use_post_quant_conv", True),
            down_block_types=fields.words("down_block_types", down, down, levels=len(widths)),
            up_block_types=fields.words("up_block_types", up, up, levels=len(widths)),
        )


class PictureAttention(Attention):
    """One head over a picture's cells, beside a shortcut."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, width, eps=_EPS)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        cells = self.group_norm(x.flatten(2)).transpose(1, 2)  # (N, h·w, C)
        return super().forward(cells).mT.reshape(x.shape) + x


class Middle(nn.Module):
    """ResNet, attention, ResNet."""

    def __init__(self, width: int, config: VaeConfig) -> None:
        super().__init__()
        groups = config.norm_num_groups
        count = 1 if config.mid_block_add_attention else 0
        self.attentions = nn.ModuleList(PictureAttention(width, groups) for _ in range(count))
        self.resnets = nn.ModuleList(Resnet(width, width, time=None, groups=groups, eps=_EPS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x)
        return out


class Level(nn.Module):
    """ResNets and a sampler."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, *, sampler: str) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            Resnet(inputs if j == 0 else outputs, outputs, time=None, groups=groups, eps=_EPS) for j in range(layers)
        )
        if sampler == "downsamplers":
            self.downsamplers = nn.ModuleList([Downsample(outputs, padding=0)])
        elif sampler == "upsamplers":
            self.upsamplers = nn.ModuleList([Upsample(outputs)])
        self.sampler = sampler

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w')."""
        for resnet in self.resnets:
            x = resnet(x)
        if self.sampler:
            x = getattr(self, self.sampler)[0](x)
        return x


class Encoder(nn.Module):
    """Pictures to twice the latent channels."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        ways = zip((widths[0], *widths), widths, strict=False)
        self.down_blocks = nn.ModuleList(
            Level(a, b, config.layers_per_block, groups, sampler="downsamplers" if i < len(widths) - 1 else "")
            for i, (a, b) in enumerate(ways)
        )
        self.mid_block = Middle(widths[-1], config)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2·latent, h, w)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x))))
        return out


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        ways = zip((widths[0], *widths), widths, strict=False)
        self.up_blocks = nn.ModuleList(
            Level(a, b, config.layers_per_block + 1, groups, sampler="upsamplers" if i < len(widths) - 1 else "")
            for i, (a, b) in enumerate(ways)
        )
        self.mid_block = Middle(widths[0], config)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, latent, h, w) -> (N, 3, H, W)."""
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out


class Vae(nn.Module):
    """Both ways."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.use_quant_conv:
            self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(latent, latent, 1)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (N, 3, H, W) in [-1, 1] -> mean and deviation of their latents, (N, latent, h, w) each, unscaled."""
        moments = self.encoder(pixels)
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, logarithm = moments.chunk(2, dim=1)
        return mean, torch.exp(0.5 * logarithm.clamp(-30.0, 20.0))

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents (N, latent, h, w) -> pictures (N, 3, H, W), about [-1, 1]."""
        out: Tensor = self.decoder(self.post_quant_conv(latents) if self.config.use_post_quant_conv else latents)
        return out

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures through their mean latents and back."""
        return self.decode(self.encode(pixels)[0])
