import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from thin_captioners import ROWS, TAGGER_SIDE, write_model, write_tags

from vez.errors import BaseModelError, MissingExtra
from vez.images.captioners.tags import Tag, Tagger, prepare, read_tags, said


def test_a_tagger_names_what_it_is_sure_of(tagger_folder: Path) -> None:
    colours = {
        (255, 0, 0): "hatsune miku, red dress, >_<",
        (0, 0, 255): "blue sky, >_<",
        (0, 255, 0): "long hair",
        (0, 100, 0): "",
        (210, 0, 0): "red dress, >_<",  # sure enough for a general tag, not for a character
    }
    images = [Image.new("RGB", (TAGGER_SIDE, TAGGER_SIDE), colour) for colour in colours]
    tagger = Tagger(tagger_folder)
    captions = tagger.caption(images)
    assert captions == list(colours.values())
    assert captions == [tagger.caption([image])[0] for image in images] and tagger.caption([]) == []


def test_pictures_are_centred_on_white_as_their_author_does() -> None:
    image = Image.new("RGB", (20, 10), (255, 0, 10))
    made = prepare(image, 20)
    assert made.shape == (20, 20, 3) and made.dtype == np.float32 and made.flags.c_contiguous
    assert (made[:5] == 255).all() and (made[15:] == 255).all()
    assert (made[5:15] == np.array([10, 0, 255], dtype=np.float32)).all()  # blue, green, red
    assert prepare(image, 8).shape == (8, 8, 3)


def test_tags_are_put_surest_first_characters_before_all() -> None:
    tags = [Tag("b", "0"), Tag("a", "0"), Tag("c", "0"), Tag("who", "4"), Tag("other", "4"), Tag("safe", "9")]
    sure = np.array([0.5, 0.5, 0.9, 0.86, 0.85, 1.0], dtype=np.float32)
    assert said(tags, sure) == ["who", "c", "a", "b"]
    assert said(tags, np.full(6, 0.35, dtype=np.float64)) == []


def test_the_names_of_tags_are_words(tmp_path: Path) -> None:
    names = ["long_hair", ">_<", "o_o", "0_0", "<|>_<|>", "(o)_(o)", "||_||", "saber_(fate)", "a,b\nc", "3:"]
    write_tags(tmp_path, [(name, "0") for name in names])
    assert [tag.name for tag in read_tags(tmp_path / "selected_tags.csv")] == [
        "long hair", ">_<", "o_o", "0_0", "<|>_<|>", "(o)_(o)", "||_||", "saber (fate)", "a b c", "3:",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "tag_id,count\n1,2\n", "name,category\n,0\n", "name,category\nx\n", "\xff"])
def test_a_list_of_tags_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "tags.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(BaseModelError, match="download the tagger again"):
        read_tags(tmp_path / "tags.csv")
    with pytest.raises(BaseModelError, match="download the tagger again"):
        read_tags(tmp_path / "absent.csv")


def test_files_that_do_not_belong_together_are_refused(tagger_folder: Path) -> None:
    image = Image.new("RGB", (TAGGER_SIDE, TAGGER_SIDE))
    write_tags(tagger_folder, ROWS[:-1])
    with pytest.raises(BaseModelError, match="6 values for 5 tags"):
        Tagger(tagger_folder).caption([image])
    write_model(tagger_folder, side="side")
    with pytest.raises(BaseModelError, match="no WD tagger"):
        Tagger(tagger_folder)
    write_model(tagger_folder, batch=2)
    with pytest.raises(BaseModelError, match="cannot look at a picture"):
        Tagger(tagger_folder).caption([image])
    (tagger_folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        Tagger(tagger_folder)
    (tagger_folder / "model.onnx").unlink()
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        Tagger(tagger_folder)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    write_tags(tmp_path)
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from vez.images.captioners.tags import Tagger\n"
        f"try: Tagger({str(tmp_path)!r})\n"
        f"except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith(MissingExtra.__name__) and 'pip install "vez[tags]"' in out
