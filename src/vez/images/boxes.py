"""Crop boxes by hand: ``boxes.toml`` beside the pictures. It is the person's file; vez only reads it.

["anna in the field.jpg"]
full = [120, 0, 1400, 1280]    # left, top, right, bottom in pixels of the upright picture
upper = [400, 20, 1000, 620]
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final, get_args

from vez.config import CropName
from vez.errors import DataError
from vez.images.crop import Box

FILE: Final = "boxes.toml"
_CROPS: Final[tuple[str, ...]] = get_args(CropName)
_MOST_BYTES: Final = 10_000_000  # a hundred thousand pictures with three boxes


def read(folder: Path) -> dict[str, dict[CropName, Box]]:
    """Picture file → crop → box, of the pictures in ``folder``; empty where there is no boxes.toml.

    Whether a box lies inside its picture is known only when it is applied (`vez.images.crop.plan_cuts`). Raises
    DataError, with the line, for a file that is not TOML, a crop that is none of full, upper and lower, and a box that
    is not four whole numbers with left < right and top < bottom.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES:,} bytes; it should hold a few lines for each picture")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    return {file: _of_one(path, text, file, boxes) for file, boxes in table.items()}


def _of_one(path: Path, text: str, file: str, boxes: Any) -> dict[CropName, Box]:
    if not isinstance(boxes, dict):
        raise DataError(
            f'{_place(path, text, file)}: {file!r} must be a table; write ["{file}"] and under it a line such as '
            "full = [0, 0, 512, 512]"
        )
    read: dict[CropName, Box] = {}
    for name, box in boxes.items():
        if name not in _CROPS:
            unquoted = f' (a file\'s name goes in quotes: ["{file}.{name}"])' if isinstance(box, dict) else ""
            raise DataError(
                f"{_place(path, text, file, name)}: {file!r} has a box for {name!r}; known are {', '.join(_CROPS)}"
                f"{unquoted}"
            )
        whole = isinstance(box, list) and len(box) == 4 and all(type(edge) is int for edge in box)
        if not whole or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
            raise DataError(
                f"{_place(path, text, file, name)}: the {name} box of {file!r} is {box!r}; write four whole numbers "
                "[left, top, right, bottom] in pixels, left before right and top before bottom"
            )
        read[name] = (box[0], box[1], box[2], box[3])
    return read


def _place(path: Path, text: str, file: str, name: str = "") -> str:
    """The file and, as near as a search can tell, the line that says something of ``file`` (and its crop)."""
    lines = text.split("\n")
    start = next((n for n, line in enumerate(lines) if file in line.partition("#")[0]), None)
    if start is None:  # the name is written with escapes
        return str(path)
    named = re.compile(rf"(^|[\s.{{,\"'\[]){re.escape(name)}[\"']?\s*[=.\]]") if name else None
    found = next((n for n in range(start, len(lines)) if named is None or named.search(lines[n])), start)
    return f"{path}, line {found + 1}"
