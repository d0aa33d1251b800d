import io
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from local_server import picture
from PIL import Image

from vez.collect.names import safe_name, stem_of, suffix_of
from vez.errors import DataError


@pytest.mark.parametrize(
    ("wished", "name"),
    [
        ("Kolo.JPG", "Kolo.png"),
        ("a/b/c.png", "c.png"),
        ("..\\..\\windows\\evil.png", "evil.png"),
        ("../../etc/passwd", "passwd.png"),
        ("/abs.jpeg/", "abs.png"),
        ("..", "picture.png"),
        ("", "picture.png"),
        (".hidden", "hidden.png"),
        ("-rf.png", "rf.png"),
        ("CON", "picture_CON.png"),
        ("nul.jpg", "picture_nul.png"),
        ("Ношња из Шумадије.jpg", "Ношња_из_Шумадије.png"),
        ("a.upper.png", "a_upper.png"),
        ("v1.2 final", "v1_2_final.png"),
        ("x\x00y\nz\u202e.png", "x_y_z.png"),
        ("a:b*c?d|e", "a_b_c_d_e.png"),
        ("provenance.jsonl", "provenance_jsonl.png"),
    ],
)
def test_names_become_safe(wished: str, name: str) -> None:
    assert safe_name(wished, ".png", set()) == name


def test_a_stem_is_used_once_whatever_case_and_suffix() -> None:
    taken: set[str] = set()
    names = []
    for wished in ("a.png", "A.jpg", "a.gif", "ａ", "b"):
        names.append(safe_name(wished, ".png", taken))
        taken.add(stem_of(names[-1]))
    assert names == ["a.png", "A_2.png", "a_3.png", "ａ_4.png", "b.png"]


HOSTILE = st.text(max_size=300) | st.text(alphabet=string.ascii_letters + "./\\ :*\x00\u202e", max_size=200)


@given(wished=HOSTILE, suffix=st.sampled_from([".jpg", ".webp", ".png"]), crowd=st.integers(0, 12))
@example(wished="𠀀" * 100, suffix=".webp", crowd=3)
@example(wished="e\u0301" * 99 + ".png", suffix=".jpg", crowd=2)
def test_whatever_is_wished_for_is_a_plain_name(wished: str, suffix: str, crowd: int) -> None:
    taken: set[str] = set()
    for _ in range(crowd + 1):
        name = safe_name(wished, suffix, taken)
        stem = name.removesuffix(suffix)
        assert name.endswith(suffix) and len(stem) > 0 and len(name) <= 80 and len(name.encode()) <= 255
        assert all(c.isalnum() or c in "-_()" for c in stem) and stem[0] not in "-_"
        assert stem.lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
        assert stem_of(name) not in taken
        taken.add(stem_of(name))


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("JPEG", ".jpg"),
        ("PNG", ".png"),
        ("WEBP", ".webp"),
        ("AVIF", ".avif"),
        ("GIF", ".gif"),
        ("BMP", ".bmp"),
        ("TIFF", ".tif"),
    ],
)
def test_the_suffix_is_that_of_the_bytes(kind: str, suffix: str) -> None:
    data = picture(1, kind)
    assert suffix_of(data) == suffix
    assert Image.open(io.BytesIO(data)).format == kind


@pytest.mark.parametrize("data", [b"", b"<svg", b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 20, b"RIFF1234WAVE"])
def test_what_has_no_suffix(data: bytes) -> None:
    with pytest.raises(DataError, match="no kind"):
        suffix_of(data)
