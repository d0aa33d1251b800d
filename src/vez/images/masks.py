"""Where the subject is on a picture: its transparency, or a mask beside it; for the crops and a masked loss."""

from pathlib import Path
from typing import Final

from PIL import Image

from vez.errors import DataError
from vez.images.decode import read_picture

ALPHA: Final = "alpha"
_SAME: Final = 1.01  # a mask drawn on a smaller copy of the picture fits, up to its rounding


def find(
    file: str, *, masks: str | None, root: Path, alpha: Image.Image | None, size: tuple[int, int]
) -> Image.Image | None:
    """The mask of a picture: 8-bit grey, ``size`` (width, height) of the upright picture, 255 where the subject is.

    ``masks`` is what the dataset's recipe says: None, "alpha" (then it is ``alpha``), or a folder, relative to
    ``root``, of <stem>.png: white is subject, or, where that file has transparent parts, what is opaque. None where
    the picture has no mask; it is then trained on as a whole.

    Raises DataError where the folder is absent, or a mask cannot be read, has another shape than its picture, or is
    black all over. A smaller or larger mask of the same shape is scaled.
    """
    if masks is None:
        return None
    if masks == ALPHA:
        return _fitted(alpha.convert("L"), size, f"the alpha of {file}") if alpha is not None else None
    folder = root / masks
    if not folder.is_dir():
        raise DataError(f'there is no folder {folder} for masks; make it, or write masks = "alpha", or take masks out')
    path = folder / f"{Path(file).stem}.png"
    if not path.is_file():
        return None
    try:
        found = read_picture(path)
    except DataError as error:
        raise DataError(f"the mask {path} of {file} cannot be used: {error}") from error
    mask = found.alpha if found.alpha is not None else found.image.convert("L")
    mask = _fitted(mask, size, f"the mask {path} of {file}")
    if mask.getbbox() is None:
        raise DataError(
            f"the mask {path} of {file} is black all over, so nothing of the picture would be learned; paint the "
            "subject white, or take the mask away"
        )
    return mask


def _fitted(mask: Image.Image, size: tuple[int, int], what: str) -> Image.Image:
    if mask.size == size:
        return mask
    stretch = mask.width * size[1] / (mask.height * size[0])
    # of a few pixels, each side may be rounded by half of one
    slack = _SAME + 0.5 / min(mask.size) + 0.5 / min(size)
    if max(stretch, 1 / stretch) > slack:
        raise DataError(
            f"{what} has {mask.width} × {mask.height} pixels, but the upright picture {size[0]} × {size[1]}: another "
            "shape; draw it on the whole upright picture"
        )
    return mask.resize(size, Image.Resampling.BILINEAR)
