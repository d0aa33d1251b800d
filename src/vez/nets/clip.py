"""CLIP's text encoders (Radford et al. 2021): OpenAI's of SD 1.x and SDXL, OpenCLIP's of SD 2.x and SDXL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vez.nets.attention import Mix, fused
from vez.nets.settings import MOST, Fields

_WORDS = 2**20  # most of them in a vocabulary; CLIP's has 49,408
_HIGHEST = 2
"""An end token of 2 stands in published configurations by mistake: there the end is the highest number of a text."""


@dataclass(frozen=True)
class TextConfig:
    """What differs between text encoders, by the names of the published configurations."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    hidden_act: Literal["quick_gelu", "gelu"]
    layer_norm_eps: float
    eos_token_id: int
    projection_dim: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The configuration in a file's words. Raises BaseModelError for what vez does not build."""
        fields = Fields(config, what="this text encoder")
        fields.only(model_type=("clip_text_model",), hidden_act=("quick_gelu", "gelu"))
        width, heads = fields.number("hidden_size", 512), fields.number("num_attention_heads", 8)
        if width % heads:
            raise fields.refused("num_attention_heads", f"numbers of heads that divide its width ({width})")
        end = config.get("eos_token_id", 49_407)
        if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end < _WORDS:
            raise fields.refused("eos_token_id", "a token's number there")
        return cls(
            vocab_size=fields.number("vocab_size", 49_408, most=_WORDS),
            hidden_size=width,
            intermediate_size=fields.number("intermediate_size", 2048, most=2**17),
            num_hidden_layers=fields.number("num_hidden_layers", 12, most=MOST),
            num_attention_heads=heads,
            max_position_embeddings=fields.number("max_position_embeddings", 77),
            hidden_act=config.get("hidden_act", "quick_gelu"),
            layer_norm_eps=fields.fraction("layer_norm_eps", 1e-5),
            eos_token_id=end,
            projection_dim=fields.number("projection_dim", 512),
        )


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x): what OpenAI's CLIP was trained with (Hendrycks and Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(…) -> (…)."""
        return x * torch.sigmoid(1.702 * x)


class GELU(nn.Module):
    """x · Φ(x): OpenCLIP's."""

    def forward(self, x: Tensor) -> Tensor:
        """(…) -> (…)."""
        return F.gelu(x)


class Embeddings(nn.Module):
    """A token's vector and its place's."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        words, places = ((n, config.hidden_size) for n in (config.vocab_size, config.max_position_embeddings))
        # Not filled with random numbers: on the meta device that would load torch's compiler, a second and 150 MB.
        self.token_embedding = nn.Embedding(*words, _weight=torch.empty(words))
        self.position_embedding = nn.Embedding(*places, _weight=torch.empty(places))

    def forward(self, ids: Tensor) -> Tensor:
        """(N, T) -> (N, T, D)."""
        places: Tensor = self.position_embedding.weight[: ids.shape[1]]
        out: Tensor = self.token_embedding(ids) + places
        return out


class SelfAttention(nn.Module):
    """Tokens ask those before them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix: Mix = fused
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        out: Tensor = self.out_proj(self.mix(q, k, v, heads=self.heads, causal=True))
        return out


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.activation_fn = QuickGELU() if config.hidden_act == "quick_gelu" else GELU()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        out: Tensor = self.fc2(self.activation_fn(self.fc1(x)))
        return out


class TextLayer(nn.Module):
    """Attention and two linear layers, each behind a norm and beside a shortcut."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Layers(nn.Module):
    """All of them."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, skip: int, *, all_of_them: bool) -> tuple[Tensor, Tensor]:
        """(N, T, D) -> what the ``skip``-th layer from the end gives, and what the last does if all are computed."""
        wanted = x
        last = len(self.layers) - (skip - 1)
        for n, layer in enumerate(self.layers if all_of_them else self.layers[:last], start=1):
            x = layer(x)
            if n == last:
                wanted = x
        return wanted, x


class TextEncoder(nn.Module):
    """Tokens to states."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, ids: Tensor, *, skip: int = 1, norm: bool = True, pooled: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Token ids (N, T) -> states (N, T, D), and, if asked for, the pooled text (N, D).

        States are the ``skip``-th layer's, counted from the end, through the final norm if ``norm``; layers behind it
        are computed only for the pooled text: what the last one, normed, has at the text's end.
        """
        states, last = self.encoder(self.embeddings(ids), skip, all_of_them=pooled)
        if not pooled:
            return (self.final_layer_norm(states) if norm else states), None
        ends = self._ends(ids)
        normed: Tensor = self.final_layer_norm(last)
        if norm:
            states = normed if skip == 1 else self.final_layer_norm(states)
        return states, normed[torch.arange(len(ids), device=ids.device), ends]

    def _ends(self, ids: Tensor) -> Tensor:
        """Where each text ends: the first end token."""
        if self.config.eos_token_id == _HIGHEST:
            return ids.to(torch.int).argmax(dim=-1)
        return (ids == self.config.eos_token_id).to(torch.int).argmax(dim=-1)


class ProjectedTextEncoder(nn.Module):
    """A text encoder whose pooled text goes through one more matrix (SDXL's second)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextEncoder(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(
        self, ids: Tensor, *, skip: int = 1, norm: bool = True, pooled: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `TextEncoder`; the pooled text is (N, P)."""
        states, text = self.text_model(ids, skip=skip, norm=norm, pooled=pooled)
        return states, None if text is None else self.text_projection(text)
