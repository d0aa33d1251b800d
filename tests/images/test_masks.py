from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vez.errors import DataError
from vez.images import masks

SIZE = (60, 40)


def half(size: tuple[int, int] = SIZE) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def find(root: Path, file: str = "a.jpg", masks_are: str | None = "masks", alpha: Image.Image | None = None):  # type: ignore[no-untyped-def]
    return masks.find(file, masks=masks_are, root=root, alpha=alpha, size=SIZE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    half().save(tmp_path / "masks" / "a.png")
    return tmp_path


def test_without_masks_there_is_none(root: Path) -> None:
    assert find(root, masks_are=None, alpha=half()) is None


def test_alpha_is_the_mask_where_there_is_one(root: Path) -> None:
    found = find(root, masks_are="alpha", alpha=half())
    assert found.mode == "L" and found.tobytes() == half().tobytes()
    assert find(root, masks_are="alpha") is None


def test_a_sidecar_is_the_mask_of_the_picture_with_its_stem(root: Path) -> None:
    for file in ("a.jpg", "a.webp", "in/a.jpg"):
        assert find(root, file).tobytes() == half().tobytes()
    assert find(root, "b.jpg") is None


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "I;16", "RGBA"])
def test_every_kind_of_png_is_a_mask(root: Path, mode: str) -> None:
    wide = Image.fromarray(np.asarray(half()).astype(np.uint16) * 257)
    image = wide if mode == "I;16" else half().convert(mode)
    image.save(root / "masks" / "a.png")
    found = find(root)
    assert found.mode == "L" and found.tobytes() == half().tobytes()


def test_of_a_cut_out_what_is_opaque_is_the_subject(root: Path) -> None:
    image = Image.new("RGBA", SIZE, "#00000000")
    image.paste("#101010ff", (0, 0, 30, 40))  # a dark thing
    image.save(root / "masks" / "a.png")
    assert find(root).tobytes() == half().tobytes()


def test_a_mask_of_the_same_shape_is_scaled(root: Path) -> None:
    for scale in (2, 5):
        half((60 * scale, 40 * scale)).save(root / "masks" / "a.png")
        found = find(root)
        assert found.size == SIZE and (np.asarray(found)[:, :28] == 255).all() and not np.asarray(found)[:, 32:].any()
    half((20, 13)).save(root / "masks" / "a.png")  # its height was rounded
    assert find(root).size == SIZE


@pytest.mark.parametrize("size", [(40, 60), (60, 44), (66, 40)])
def test_a_mask_of_another_shape_is_refused(root: Path, size: tuple[int, int]) -> None:
    half(size).save(root / "masks" / "a.png")
    with pytest.raises(DataError, match=f"a.png of a.jpg has {size[0]} × {size[1]} pixels.*60 × 40"):
        find(root)


def test_a_black_mask_is_refused(root: Path) -> None:
    Image.new("L", SIZE).save(root / "masks" / "a.png")
    with pytest.raises(DataError, match="black all over"):
        find(root)


def test_a_missing_folder_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*other for masks"):
        find(root, masks_are="other")


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n and no more"])
def test_a_damaged_mask_is_refused(root: Path, data: bytes) -> None:
    (root / "masks" / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"the mask .*a.png of a.jpg cannot be used"):
        find(root)
