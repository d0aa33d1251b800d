from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.errors import DataError
from vez.images import boxes

GOOD = """
# boxes by hand
["anna in the field.jpg"]
full = [120, 0, 1400, 1280]
upper = [400, 20, 1000, 620]  # the shirt

["b.png"]
lower = [0, 1, 2, 3]
"""


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "boxes.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_no_file_is_no_boxes(tmp_path: Path) -> None:
    assert boxes.read(tmp_path) == {}
    assert boxes.read(tmp_path / "absent") == {}


def test_boxes_are_read_and_the_file_is_left_alone(tmp_path: Path) -> None:
    folder = written(tmp_path, "\ufeff" + GOOD)
    assert boxes.read(folder) == {
        "anna in the field.jpg": {"full": (120, 0, 1400, 1280), "upper": (400, 20, 1000, 620)},
        "b.png": {"lower": (0, 1, 2, 3)},
    }
    assert (tmp_path / "boxes.toml").read_text(encoding="utf-8") == "\ufeff" + GOOD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["a.jpg"]\nfull = [0, 0, 5]', r"line 2: the full box of 'a.jpg' is \[0, 0, 5\]"),
        ('["b.jpg"]\nfull = [0, 0, 5, 5]\n["a.jpg"]\n\nfull = [0, 0, 0, 5]', r"line 5: the full box of 'a.jpg'"),
        ('["a.jpg"]\nupper = [0, 9, 5, 5]', "line 2: the upper box"),
        ('["a.jpg"]\nfull = [-1, 0, 5, 5]', "line 2: the full box"),
        ('["a.jpg"]\nfull = [0.5, 0, 5, 5]', "line 2: .*four whole numbers"),
        ('["a.jpg"]\nfull = [true, 0, 5, 5]', "line 2: .*four whole numbers"),
        ('["a.jpg"]\nfull = "all"', "line 2: .*is 'all'"),
        (
            '["a.jpg"]\nfull = [0, 0, 5, 5]\nhead = [0, 0, 5, 5]',
            "line 3: 'a.jpg' has a box for 'head'; known are full, upper",
        ),
        ('"a.jpg" = { full = [0, 0, 1, 1], lower = [3, 0, 2, 2] }', "line 1: the lower box"),
        ('"a.jpg" = [0, 0, 5, 5]', "line 1: 'a.jpg' must be a table"),
        ("[a.jpg]\nfull = [0, 0, 5, 5]", r"a file's name goes in quotes: \[\"a.jpg\"\]"),
        ('["\\u0061.jpg"]\nfull = 3', "boxes.toml: the full box of 'a.jpg' is 3"),
        ("a = 1\nfull = [nothing]", "is not valid TOML: .*line 2"),
        ("x = " + "[" * 5000, "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        boxes.read(written(tmp_path, text))


def test_a_folder_or_a_heap_of_that_name_is_refused(tmp_path: Path) -> None:
    written(tmp_path, b"#" * 10_000_001)
    with pytest.raises(DataError, match="10,000,000 bytes"):
        boxes.read(tmp_path)
    (tmp_path / "boxes.toml").unlink()
    (tmp_path / "boxes.toml").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        boxes.read(tmp_path)


@given(text=st.text(alphabet=st.sampled_from("[]=\"'.{},#\n ab0159-full_jpgé"), max_size=60))
def test_whatever_stands_there_is_boxes_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = written(tmp_path_factory.mktemp("boxes"), text)
    try:
        found = boxes.read(folder)
    except DataError as error:
        assert "boxes.toml" in str(error) and "\n" not in str(error).strip()
    else:
        assert all(left < right and top < bottom for of in found.values() for left, top, right, bottom in of.values())
