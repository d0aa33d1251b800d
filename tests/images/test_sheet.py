import numpy as np
import pytest
from PIL import Image, ImageColor

from vez.images.crop import Cut
from vez.images.sheet import COLOURS, contact_sheet

RED = Image.new("RGB", (300, 200), "red")
CUT = Cut("full", (100, 0, 300, 200), "auto", (64, 64))


def count(sheet: Image.Image, colour: str) -> int:
    return int((np.asarray(sheet) == ImageColor.getrgb(colour)).all(axis=2).sum())


def test_an_entry_is_the_picture_with_its_boxes_and_the_training_pictures() -> None:
    bare = contact_sheet([("a.jpg", RED, [])], width=800)
    sheet = contact_sheet([("a.jpg", RED, [CUT])], width=800)
    assert sheet.mode == "RGB" and sheet.width == 800
    assert count(bare, COLOURS["full"]) == 0 < 300 < count(sheet, COLOURS["full"])
    assert count(sheet, "red") > count(bare, "red") + 25_000  # the training picture, 164 pixels tall
    upper = Cut("upper", (100, 0, 200, 100), "hand", (64, 64))
    both = contact_sheet([("a.jpg", RED, [CUT, upper])], width=800)
    assert count(both, COLOURS["upper"]) > 200 and count(both, "red") > count(sheet, "red") + 20_000


def test_the_box_is_drawn_where_it_is() -> None:
    pixels = np.asarray(contact_sheet([("a", RED, [CUT])], width=800))
    columns = np.flatnonzero((pixels == ImageColor.getrgb(COLOURS["full"])).all(axis=2).sum(axis=0) > 130)
    assert columns.min() == 8 + round(100 * 164 / 200)  # the sheet's edge, then a third of the picture


def test_blocks_flow_and_the_sheet_grows() -> None:
    one, many = (contact_sheet([("a", RED, [CUT])] * n, width=1200) for n in (2, 13))
    assert one.width == many.width == 1200 and many.height > 3 * one.height
    assert contact_sheet([], width=300).width == 300


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3000, 2000)])
@pytest.mark.parametrize("width", [60, 400, 1600])
def test_any_picture_fits_on_any_sheet(size: tuple[int, int], width: int) -> None:
    cuts = [Cut("full", (0, 0, *size), "auto", (2048, 512)), Cut("lower", (0, 0, 1, 1), "face", (512, 2048))]
    sheet = contact_sheet([("name.jpg", Image.new("RGB", size), cuts)], width=width)
    assert sheet.width == width and sheet.height < 400


@pytest.mark.parametrize("name", ["", "ana\u0161 \u043d\u043e\u0448\u045a\u0430 \U0001f600\n\x00", "x" * 500])
def test_any_name_is_written(name: str) -> None:
    assert contact_sheet([(name, RED, [CUT])], width=800).size == contact_sheet([("a", RED, [CUT])], width=800).size
