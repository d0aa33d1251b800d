"""What U-Net and VAE share: ResNet blocks (He et al. 2016) and what halves and doubles a picture's sides."""

from torch import Tensor, nn
from torch.nn import functional as F


class Resnet(nn.Module):
    """Norm, SiLU, convolution, twice, beside a shortcut; the time is added between."""

    def __init__(self, inputs: int, outputs: int, *, time: int | None, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        if time is not None:
            self.time_emb_proj = nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nonlinearity = nn.SiLU()
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)
        self.widens = inputs != outputs

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(N, in, h, w), and the activated time (N, D) -> (N, out, h, w)."""
        y = self.conv1(self.nonlinearity(self.norm1(x)))
        if time is not None:
            y = y + self.time_emb_proj(time)[:, :, None, None]
        y = self.conv2(self.nonlinearity(self.norm2(y)))
        out: Tensor = (self.conv_shortcut(x) if self.widens else x) + y
        return out


class Downsample(nn.Module):
    """A convolution that halves the sides; ``padding`` 0: filled up at the right and below only, as the VAE does."""

    def __init__(self, channels: int, *, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.corner = padding == 0

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h/2, w/2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.corner else x)
        return out


class Upsample(nn.Module):
    """Each cell four times, or as often as ``size`` asks, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, C, h, w) -> (N, C, 2h, 2w), or of the size."""
        if size is None or size == (2 * x.shape[2], 2 * x.shape[3]):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        else:
            x = F.interpolate(x, size=size, mode="nearest")
        out: Tensor = self.conv(x)
        return out
