"""Where faces are: an aid to the crops, from the extra ``faces`` (OpenCV). Nothing is downloaded.

With a model file, OpenCV's `FaceDetectorYN` (YuNet; Wu et al., "YuNet: A Tiny Millisecond-level Face Detector",
Machine Intelligence Research 2023). Without one, the cascade that OpenCV 4 brings along (Viola & Jones, "Rapid Object
Detection using a Boosted Cascade of Simple Features", CVPR 2001; Lienhart & Maydt, ICIP 2002): upright frontal faces
only. OpenCV 5 brings no cascade.
"""

import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.errors import BaseModelError, MissingExtra
from vez.images.crop import Box

_LONGEST: Final = 768  # side at which faces are looked for, in pixels
_SMALLEST: Final = 1 / 24  # of the short side; what is smaller is no portrait
_SURE: Final = 0.7  # YuNet's score from which on a face is one
_NEIGHBOURS: Final = 6  # overlapping finds that make a face for the cascade
_CASCADE: Final = "haarcascade_frontalface_alt2.xml"
_EYES: Final = "haarcascade_eye.xml"


def finder(model: Path | None = None) -> Callable[[Image.Image], list[Box]]:
    """What finds faces in an upright picture: boxes inside it from brow to chin, the largest first.

    ``model`` is YuNet as ONNX. The finder may be called from several threads; it looks at one picture at a time.
    Raises MissingExtra where OpenCV is absent, or has no cascade and no ``model`` is given; BaseModelError where
    ``model`` is no such file.
    """
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        raise MissingExtra('faces are found by OpenCV: pip install "vez[faces]"') from error
    find = _by_cascade(cv2) if model is None else _by_yunet(cv2, model)
    lock = threading.Lock()

    def faces(image: Image.Image) -> list[Box]:
        scale = min(1.0, _LONGEST / max(image.size))
        small = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        rgb = np.asarray(image.convert("RGB").resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0))
        with lock:
            found = find(rgb)
        boxes = [_in_picture(box, image.size, small) for box in found]
        whole = [box for box in boxes if box is not None]
        return sorted(whole, key=lambda box: (-(box[2] - box[0]) * (box[3] - box[1]), box))

    return faces


def _by_cascade(cv2: Any) -> Callable[[NDArray[np.uint8]], list[tuple[float, ...]]]:
    folder = Path(getattr(getattr(cv2, "data", None), "haarcascades", ""))
    if not hasattr(cv2, "CascadeClassifier") or not all((folder / name).is_file() for name in (_CASCADE, _EYES)):
        raise MissingExtra(
            f"OpenCV {cv2.__version__} brings no face detector along; give the path of a YuNet model "
            '(face_detection_yunet_2023mar.onnx), or pip install "opencv-python-headless<5"'
        )
    cascade, eyes = (cv2.CascadeClassifier(str(folder / name)) for name in (_CASCADE, _EYES))

    def find(rgb: NDArray[np.uint8]) -> list[tuple[float, ...]]:
        grey = cv2.equalizeHist(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        least = max(24, round(min(grey.shape) * _SMALLEST))
        boxes = cascade.detectMultiScale(grey, scaleFactor=1.08, minNeighbors=_NEIGHBOURS, minSize=(least, least))
        return [tuple(map(float, box)) for box in boxes if _has_eyes(eyes, grey, box)]

    return find


def _has_eyes(eyes: Any, grey: NDArray[np.uint8], box: Any) -> bool:
    """An eye in the upper part of what the cascade takes for a face: clocks and pockets seldom have one."""
    left, top, width, height = (int(edge) for edge in box)
    upper = grey[top : top + max(1, round(0.6 * height)), left : left + width]
    least = max(5, round(0.1 * width))
    return len(eyes.detectMultiScale(upper, scaleFactor=1.05, minNeighbors=2, minSize=(least, least))) > 0


def _by_yunet(cv2: Any, model: Path) -> Callable[[NDArray[np.uint8]], list[tuple[float, ...]]]:
    if not model.is_file():
        raise BaseModelError(f"there is no file {model}; give the path of a YuNet model (.onnx)")
    try:
        detector = cv2.FaceDetectorYN.create(str(model), "", (320, 320), _SURE)
        detector.detect(np.zeros((320, 320, 3), dtype=np.uint8))
    except cv2.error as error:
        raise BaseModelError(f"{model} is not a YuNet model that OpenCV {cv2.__version__} can use") from error

    def find(rgb: NDArray[np.uint8]) -> list[tuple[float, ...]]:
        detector.setInputSize((rgb.shape[1], rgb.shape[0]))
        _, rows = detector.detect(np.ascontiguousarray(rgb[:, :, ::-1]))
        least = min(rgb.shape[:2]) * _SMALLEST
        return [tuple(map(float, row[:4])) for row in (rows if rows is not None else ()) if row[3] >= least]

    return find


def _in_picture(found: tuple[float, ...], size: tuple[int, int], small: tuple[int, int]) -> Box | None:
    """(x, y, width, height) in the small copy → a box in the picture; None where nothing of it is inside."""
    x, y = size[0] / small[0], size[1] / small[1]
    left, top = max(0, round(found[0] * x)), max(0, round(found[1] * y))
    right, bottom = min(size[0], round((found[0] + found[2]) * x)), min(size[1], round((found[1] + found[3]) * y))
    return (left, top, right, bottom) if left < right and top < bottom else None
