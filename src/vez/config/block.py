"""The table of one part of the U-Net that a LoRA treats otherwise than the rest."""

from typing import Annotated

from pydantic import AfterValidator, Field

from vez.config.table import Table

_PARTS = {"down": 2, "mid": 1, "up": 2}  # how many numbers may follow


def _known(name: str) -> str:
    part, *numbers = name.split(".")
    if len(numbers) > _PARTS.get(part, -1) or not all(n.isdecimal() and len(n) == 1 for n in numbers):
        raise ValueError(
            f"there is no block {name!r} in a U-Net; blocks are down, mid and up, levels of them as down.1, and single "
            "ones as down.1.0 and mid.1"
        )
    return name


BlockName = Annotated[str, AfterValidator(_known)]


class Block(Table):
    """What a part of the U-Net (down, mid, up; down.1; down.1.0) has otherwise than the rest; a narrower name wins."""

    rank: int | None = Field(default=None, ge=0, le=1024)
    """Rank there; 0: not adapted (kohya: block_dims)."""
    alpha: float | None = Field(default=None, gt=0)
    """Alpha there (block_alphas); absent: as much of the rank as the variant's alpha is of its."""
    conv_rank: int | None = Field(default=None, ge=0, le=1024)
    """Rank of the 3×3 convolutions there; 0: not adapted (conv_block_dims)."""
    conv_alpha: float | None = Field(default=None, gt=0)
    """Alpha of the 3×3 convolutions there (conv_block_alphas)."""
    lr: float | None = Field(default=None, ge=0)
    """Multiple of lr_unet there; 0: not adapted (down_lr_weight, mid_lr_weight, up_lr_weight)."""
