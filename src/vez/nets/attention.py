"""Attention (Vaswani et al. 2017) as U-Net, VAE and text encoders ask for it: what mixes q, k and v can be replaced."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

Mix = Callable[..., Tensor]
"""(q (N, T, C), k and v (N, S, C), heads=…, causal=…, exact=…) -> (N, T, C).

``causal``: a token sees none that come after it. ``exact``: scores in fp32, where they are computed openly (SD 2.1's
U-Net overflowed in fp16).
"""


def fused(q: Tensor, k: Tensor, v: Tensor, *, heads: int, causal: bool = False, exact: bool = False) -> Tensor:
    """softmax(q kᵀ / √d) v of every head, by PyTorch's fused kernel."""
    mixed = F.scaled_dot_product_attention(split(q, heads), split(k, heads), split(v, heads), is_causal=causal)
    return mixed.transpose(1, 2).flatten(2)


def split(x: Tensor, heads: int) -> Tensor:
    """(N, T, C) -> (N, H, T, C/H)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


class Attention(nn.Module):
    """Tokens ask themselves, or others of width ``other``."""

    def __init__(self, width: int, heads: int, *, other: int | None = None, bias: bool = False, exact: bool = False):
        super().__init__()
        self.heads, self.exact = heads, exact
        self.mix: Mix = fused
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(other or width, width, bias=bias)
        self.to_v = nn.Linear(other or width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, T, C), asked of itself or of (N, S, D) -> (N, T, C)."""
        other = x if other is None else other
        mixed = self.mix(self.to_q(x), self.to_k(other), self.to_v(other), heads=self.heads, exact=self.exact)
        out: Tensor = self.to_out[0](mixed)
        return out
