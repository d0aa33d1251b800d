"""The networks as they draw: the same arithmetic as their modules' in fewer passes over memory, from packed weights.

Nothing here can be trained, and a change of the modules' weights is not seen. What is the same in every step of a
solver is computed once: keys and values of the captions (`FrozenUNet.told`). What is the same for all pictures of a
batch is computed for one: the time, which becomes the bias of each ResNet's first convolution. And what guidance asks
twice, without a caption and with it, is computed once up to the first layer that reads the caption.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vez.nets.attention import split
from vez.nets.packed import Convolution, Dense, Doubling, How
from vez.nets.unet import UNet, sinusoids
from vez.nets.vae import Vae

Mixed = tuple[Tensor, Tensor]
"""Keys and values of a layer, (N, S, C) each."""


_SHALLOW = 40  # numbers a head, below which PyTorch's fused attention is slower than its products on a CPU
_SMALL = 1024**2  # scores of a head in bfloat16, up to which that kernel took 1.03 to 1.9 times as long as products
_SCORES = 2**20  # bytes of scores that are computed at once: twice as much took 1.25 times as long


class _Norm:
    """A group norm, and SiLU where it is asked for."""

    def __init__(self, norm: nn.GroupNorm, how: How) -> None:
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight.detach().to(how.dtype), norm.bias.detach().to(how.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def active(self, x: Tensor) -> Tensor:
        return F.silu(self(x), inplace=True)


class _Resnet:
    def __init__(self, block: Any, how: How) -> None:
        self.norm1, self.norm2 = _Norm(block.norm1, how), _Norm(block.norm2, how)
        self.conv1, self.conv2 = Convolution(block.conv1, how), Convolution(block.conv2, how)
        self.shortcut = Dense([block.conv_shortcut], how) if block.widens else None
        self.time = Dense([block.time_emb_proj], how) if hasattr(block, "time_emb_proj") else None

    def __call__(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        y, bias = self.norm1.active(x), self.conv1.bias
        if self.time is None or time is None:
            y = self.conv1(y)
        elif len(time) == 1:
            told = self.time(time)[0]
            y = self.conv1(y, bias=told if bias is None else told + bias)
        else:
            y = self.conv1(y).add_(self.time(time)[:, :, None, None])
        y = self.norm2.active(y)
        return self.conv2.plus(y, x if self.shortcut is None else _picture(self.shortcut(_tokens(x)), x))


class _Layers:
    """A layer norm, or a linear layer behind one."""

    def __init__(self, norm: nn.LayerNorm, how: How) -> None:
        self.shape, self.eps = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight.detach().to(how.dtype), norm.bias.detach().to(how.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class _Block:
    """A transformer block: cells ask each other, then the caption, then each itself."""

    def __init__(self, block: Any, how: How) -> None:
        self.norms = [_Layers(norm, how) for norm in (block.norm1, block.norm2, block.norm3)]
        self.heads = block.attn1.heads
        self.asked = Dense([block.attn1.to_q, block.attn1.to_k, block.attn1.to_v], how)
        self.query = Dense([block.attn2.to_q], how)
        self.keys = Dense([block.attn2.to_k], how)
        self.values = Dense([block.attn2.to_v], how)
        self.outs = [Dense([attention.to_out[0]], how) for attention in (block.attn1, block.attn2)]
        both = block.ff.net[0].proj
        width = both.out_features // 2
        self.value, self.gate = (Dense([both], how, part=half) for half in (slice(width), slice(width, None)))
        self.back = Dense([block.ff.net[2]], how)

    def told(self, text: Tensor) -> Mixed:
        return self.keys(text), self.values(text)

    def __call__(self, x: Tensor, told: Mixed) -> Tensor:
        q, k, v = self.asked(self.norms[0](x)).chunk(3, dim=-1)
        x = _repeated(self.outs[0].plus(_mixed(q, k, v, self.heads), x), len(told[0]))
        x = self.outs[1].plus(_mixed(self.query(self.norms[1](x)), *told, self.heads), x)
        y = self.norms[2](x)
        gate = torch.ops.aten.gelu_(self.gate(y))
        return self.back.plus(self.value(y).mul_(gate), x)


class _Transformer:
    def __init__(self, module: Any, how: How) -> None:
        self.norm = _Norm(module.norm, how)
        self.into, self.out = Dense([module.proj_in], how), Dense([module.proj_out], how)
        self.blocks = [_Block(block, how) for block in module.transformer_blocks]

    def __call__(self, x: Tensor, told: list[Mixed]) -> Tensor:
        y = self.into(_tokens(self.norm(x)))
        for block, of in zip(self.blocks, told, strict=True):
            y = block(y, of)
        return _picture(self.out.plus(y, _repeated(_tokens(x), len(y))), x)


class _Level:
    def __init__(self, level: Any, how: How) -> None:
        self.resnets = [_Resnet(block, how) for block in level.resnets]
        attentions = getattr(level, "attentions", [])
        self.attentions = [_Transformer(block, how) for block in attentions]
        down, up = getattr(level, "downsamplers", []), getattr(level, "upsamplers", [])
        self.down = Convolution(down[0].conv, how) if len(down) else None
        self.up = Doubling(up[0].conv, how) if len(up) else None


@dataclass(frozen=True)
class Told:
    """What a U-Net is told of a batch in all steps: its captions' keys and values, layer by layer; SDXL's sizes."""

    layers: list[list[Mixed]]
    added: Tensor | None


class FrozenUNet:
    """A U-Net as it draws, with the weights that it has now."""

    def __init__(self, unet: UNet, how: How) -> None:
        self.config, self.dtype = unet.config, how.dtype
        own: Any = unet
        self.conv_in, self.conv_out = Convolution(own.conv_in, how), Convolution(own.conv_out, how)
        self.times = [Dense([layer], how) for layer in (own.time_embedding.linear_1, own.time_embedding.linear_2)]
        self.sizes: list[Dense] = []
        if unet.config.addition_embed_type:
            self.sizes = [Dense([layer], how) for layer in (own.add_embedding.linear_1, own.add_embedding.linear_2)]
        self.down = [_Level(level, how) for level in own.down_blocks]
        self.mid = _Level(own.mid_block, how)
        self.up = [_Level(level, how) for level in own.up_blocks]
        self.norm = _Norm(own.conv_norm_out, how)
        self.attentions = [at for level in (*self.down, self.mid, *self.up) for at in level.attentions]

    def told(self, text: Tensor, *, pooled: Tensor | None = None, sizes: Tensor | None = None) -> Told:
        """Captions (N, T, D), SDXL's pooled text (N, P) and sizes (N, 6) -> what is asked with in every step."""
        text = text.to(self.dtype)
        layers = [[block.told(text) for block in attention.blocks] for attention in self.attentions]
        if not self.sizes or pooled is None or sizes is None:
            return Told(layers, None)
        steps = sinusoids(sizes, self.config.addition_time_embed_dim or 0).flatten(1)
        both = torch.cat([pooled.to(self.dtype), steps.to(self.dtype)], dim=-1)
        return Told(layers, self.sizes[1](F.silu(self.sizes[0](both))))

    def __call__(self, x: Tensor, timestep: int, told: Told) -> Tensor:
        """Noisy latents x (B, 4, h, w) at one timestep -> what the U-Net says, (N, 4, h, w) in its dtype.

        It is told of N captions: as many as there are latents, or a multiple, which sees the latents again and again.
        """
        times = torch.tensor([timestep], device=x.device)
        embedded = sinusoids(times, self.config.block_out_channels[0]).to(self.dtype)
        embedded = self.times[1](F.silu(self.times[0](embedded)))
        time = F.silu(embedded if told.added is None else embedded + told.added)
        layers = iter(told.layers)
        x = x if len(time) == 1 else _repeated(x, len(time))  # SDXL's time knows of the caption
        x = self.conv_in(x.to(self.dtype).contiguous(memory_format=torch.channels_last))
        skips = [x]
        for level in self.down:
            for n, resnet in enumerate(level.resnets):
                x = resnet(x, time)
                x = level.attentions[n](x, next(layers)) if level.attentions else x
                skips.append(x)
            if level.down is not None:
                x = level.down(x)
                skips.append(x)
        x = self.mid.resnets[0](x, time)
        x = self.mid.resnets[1](self.mid.attentions[0](x, next(layers)), time)
        for level in self.up:
            for n, resnet in enumerate(level.resnets):
                x = resnet(torch.cat([x, _repeated(skips.pop(), len(x))], dim=1), time)
                x = level.attentions[n](x, next(layers)) if level.attentions else x
            if level.up is not None:
                height, width = skips[-1].shape[2:]
                x = level.up(x, (height, width))
        return self.conv_out(self.norm.active(x))


class FrozenDecoder:
    """A VAE's decoder as it draws, with the weights that it has now."""

    def __init__(self, vae: Vae, how: How) -> None:
        own: Any = vae
        self.dtype = how.dtype
        self.post = Convolution(own.post_quant_conv, how) if vae.config.use_post_quant_conv else None
        decoder = own.decoder
        self.conv_in, self.conv_out = Convolution(decoder.conv_in, how), Convolution(decoder.conv_out, how)
        self.mid = [_Resnet(block, how) for block in decoder.mid_block.resnets]
        self.attentions = [_PictureAttention(block, how) for block in decoder.mid_block.attentions]
        self.levels = [_Level(level, how) for level in decoder.up_blocks]
        self.norm = _Norm(decoder.conv_norm_out, how)

    def __call__(self, latents: Tensor) -> Tensor:
        """Unscaled latents (N, latent, h, w) -> pictures (N, 3, H, W), about [-1, 1]."""
        x = latents.to(self.dtype).contiguous(memory_format=torch.channels_last)
        x = self.mid[0](self.conv_in(x if self.post is None else self.post(x)))
        for attention in self.attentions:
            x = attention(x)
        x = self.mid[1](x)
        for level in self.levels:
            for resnet in level.resnets:
                x = resnet(x)
            x = x if level.up is None else level.up(x)
        return self.conv_out(self.norm.active(x)).float()


class _PictureAttention:
    def __init__(self, block: Any, how: How) -> None:
        self.norm = _Norm(block.group_norm, how)
        self.asked, self.out = Dense([block.to_q, block.to_k, block.to_v], how), Dense([block.to_out[0]], how)

    def __call__(self, x: Tensor) -> Tensor:
        q, k, v = self.asked(_tokens(self.norm(x))).chunk(3, dim=-1)
        return _picture(self.out.plus(_mixed(q, k, v, 1), _tokens(x)), x)


def _repeated(x: Tensor, count: int) -> Tensor:
    """(B, …) -> (count, …), all of it again and again, as it lies in memory."""
    return x if len(x) == count else torch.cat([x] * (count // len(x)))


def _tokens(x: Tensor) -> Tensor:
    """(N, C, h, w), channels last in memory -> (N, h·w, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _picture(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, h·w, C) -> (N, C, h, w), channels last in memory."""
    return tokens.view(len(tokens), *like.shape[2:], tokens.shape[2]).permute(0, 3, 1, 2)


def _mixed(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of (N, T, C) to (N, S, C) -> (N, T, C)."""
    depth = q.shape[2] // heads
    small = q.dtype == torch.bfloat16 and q.shape[1] * k.shape[1] <= _SMALL
    if q.device.type == "cpu" and (small or (q.dtype == torch.float32 and depth < _SHALLOW)):
        return _by_products(q, k, v, heads)
    mixed = F.scaled_dot_product_attention(split(q, heads), split(k, heads), split(v, heads))
    return mixed.transpose(1, 2).flatten(2)


def _by_products(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The same, some heads at a time, so that their scores stay in the cache.

    In fp32 with 16 numbers a head the fused kernel takes 1.4 times as long, with 40 as long (Zen 5, two cores).
    """
    (count, tokens, width), others = q.shape, k.shape[1]
    depth = width // heads
    q, v = (split(x, heads).reshape(count * heads, -1, depth) for x in (q, v))
    k = split(k, heads).transpose(2, 3).reshape(count * heads, depth, others)
    out = torch.empty_like(q)
    at_once = min(count * heads, max(heads, _SCORES // (tokens * others * q.element_size())))
    room = q.new_empty(at_once, tokens, others)
    for i in range(0, count * heads, at_once):
        part = slice(i, i + at_once)
        scores = room[: len(q[part])]
        torch.baddbmm(scores, q[part], k[part], beta=0, alpha=depth**-0.5, out=scores)
        torch.bmm(torch.softmax(scores, dim=-1, out=scores), v[part], out=out[part])
    return out.view(count, heads, tokens, depth).transpose(1, 2).reshape(count, tokens, width)
