import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vez.demo
from images.photographs import FOLDER, needs_photographs
from vez.errors import BaseModelError, MissingExtra
from vez.images.crop import overlap
from vez.images.decode import decode
from vez.images.faces import finder

needs_opencv = pytest.mark.skipif(find_spec("cv2") is None, reason='no OpenCV: pip install "vez[faces]"')
needs_cascade = pytest.mark.skipif(
    find_spec("cv2") is None or not hasattr(import_module("cv2"), "CascadeClassifier"), reason="OpenCV 4 only"
)


def drawn() -> Image.Image:
    """A drawn woman, blurred as a photograph out of focus: what the cascade takes for a face."""
    return decode(Path(vez.demo.__file__).parent / "project/images/v2/found-blurred-4.jpg")


@needs_cascade
def test_a_face_is_found_where_it_is() -> None:
    image = drawn()
    (box,) = finder()(image)
    assert overlap(box, (166, 79, 353, 266)) > 0.7


@needs_cascade
@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (500, 20), (300, 300)])
def test_no_face_is_no_box(size: tuple[int, int]) -> None:
    assert finder()(Image.new("RGB", size, "grey")) == []


@needs_cascade
@needs_photographs
def test_things_that_look_like_faces_to_the_cascade_have_no_eyes() -> None:
    find = finder()
    for name in ("backpack/02.jpg", "backpack/04.jpg", "backpack/05.jpg", "vase/01.jpg"):
        assert find(decode(FOLDER / name)) == []


@needs_cascade
def test_one_finder_serves_several_threads() -> None:
    find, image = finder(), drawn()
    with ThreadPoolExecutor(4) as pool:
        assert len({tuple(boxes) for boxes in pool.map(find, [image] * 8)}) == 1


@needs_opencv
def test_a_yunet_model_is_asked(tmp_path: Path) -> None:
    """A net with YuNet's outputs that finds a face wherever a field of 32 × 32 pixels is red."""
    model = tmp_path / "red.onnx"
    model.write_bytes(red_net())
    image = Image.new("RGB", (640, 320), "black")
    image.paste("#0000ff", (64, 64, 96, 96))  # red, if channels were swapped
    image.paste("#ff0000", (320, 160, 352, 192))
    find = finder(model)
    (box,) = find(image)
    assert box == (304, 144, 336, 176)  # YuNet gives a field's box around its upper left corner
    assert find(image) == [box]
    large = Image.new("RGB", (1536, 768), "black")  # looked at half as large
    large.paste("#ff0000", (640, 320, 704, 384))
    (found,) = find(large)
    assert overlap(found, (608, 288, 672, 352)) > 0.9


@needs_opencv
@pytest.mark.parametrize("data", [None, b"", b"no model"])
def test_what_is_no_model_is_a_sentence(tmp_path: Path, data: bytes | None, capfd: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "yunet.onnx"
    if data is not None:
        model.write_bytes(data)
    with pytest.raises(BaseModelError, match=r"yunet.onnx"):
        finder(model)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"vez\[faces\]"):
        finder()


def test_an_opencv_without_cascades_asks_for_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenCV 5: no CascadeClassifier, and an empty folder for cascades."""
    five = SimpleNamespace(__version__="5.0.0", data=SimpleNamespace(haarcascades=str(tmp_path)))
    monkeypatch.setitem(sys.modules, "cv2", five)
    with pytest.raises(
        MissingExtra, match=r"OpenCV 5.0.0 brings no face detector along; give the path of a YuNet model"
    ):
        finder()


# -- ONNX, as little of it as YuNet's outputs need (protocol buffers: a field is a number, a kind and a value) --------


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: np.ndarray) -> bytes:  # type: ignore[type-arg]
    kind = 7 if values.dtype == np.int64 else 1
    dims = b"".join(field(1, side) for side in values.shape)
    return field(5, dims + field(2, kind) + field(8, name) + field(9, values.tobytes()))


def node(kind: str, inputs: list[str], output: str, **lists: list[int]) -> bytes:
    attributes = b"".join(
        field(5, field(1, name) + b"".join(field(8, n) for n in values) + field(20, 7))
        for name, values in lists.items()
    )
    ends = b"".join(field(1, name) for name in inputs) + field(2, output)
    return field(1, ends + field(3, output) + field(4, kind) + attributes)


def ends(number: int, name: str, dims: list[int]) -> bytes:
    shape = b"".join(field(1, field(1, side)) for side in dims)
    return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, shape))))


def red_net() -> bytes:
    graph, outputs = b"", b""
    for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            weights = np.zeros((channels, 3, stride, stride), dtype=np.float32)
            if channels == 1 and stride == 32:
                weights[0, 2] = 1 / (255 * stride * stride)  # OpenCV hands over blue, green, red
            output = f"{name}_{stride}"
            graph += tensor(f"w_{output}", weights) + tensor(
                f"to_{output}", np.array([1, -1, channels], dtype=np.int64)
            )
            graph += node(
                "Conv", ["input", f"w_{output}"], f"c_{output}", kernel_shape=[stride] * 2, strides=[stride] * 2
            )
            graph += node("Reshape", [f"c_{output}", f"to_{output}"], output)
            outputs += ends(12, output, [1, (320 // stride) ** 2, channels])
    graph += field(2, "red") + ends(11, "input", [1, 3, 320, 320]) + outputs
    return field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 11))
