"""Looking at pictures: in order, on all cores, and never twice."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vez.config import Dataset as Recipe
from vez.dataset import read_sources
from vez.dataset.look import LOG, Look, Looked, look, training_names
from vez.errors import DataError, StoreError
from vez.events import Item


def fill(folder: Path, count: int = 7) -> dict[str, str]:
    folder.mkdir(parents=True)
    for i in range(count):
        values = np.random.default_rng(i).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        Image.fromarray(values).resize((90, 70)).save(folder / f"{i}.png")
    return read_sources(folder)


def how(root: Path, sources: dict[str, str]) -> Look:
    (root / "made" / "images").mkdir(parents=True, exist_ok=True)
    recipe = Recipe(images=Path("images"), resolution=64)
    return Look(recipe, root, {}, root / "made", training_names(list(sources)))


def looked(look_how: Look, sources: dict[str, str], *, stop_after: int | None = None) -> list[Looked]:
    stage = look(look_how, sources)
    done = 0
    try:
        while True:
            event = next(stage)
            done += 1
            assert event == Item("check", done, len(sources))
            if done == stop_after:
                stage.close()
                return []
    except StopIteration as end:
        return list(end.value)


def test_order_and_files(tmp_path: Path) -> None:
    sources = fill(tmp_path / "images")
    seen = looked(how(tmp_path, sources), sources)
    assert [one.picture.file for one in seen] == list(sources)
    assert [one.made[0].file for one in seen] == [f"images/{i}.png" for i in range(7)]
    assert all((tmp_path / "made" / one.made[0].file).is_file() for one in seen)


def cut_short(made: Path) -> None:
    """A kill inside a line."""
    with open(made / LOG, "a") as log:
        log.write('{"picture": {"file": "3.p')


def lost(made: Path) -> None:
    """The line is on disk and the picture is not."""
    (made / "images" / "1.png").write_bytes(b"\x89PNG")


def torn_inside(made: Path) -> None:
    """A crash of the machine: a line in the middle is broken, and another holds the zeros of a lost block."""
    lines = (made / LOG).read_bytes().split(b"\n")
    (made / LOG).write_bytes(b"\n".join([lines[0], lines[1][:50], b"\0" * 90, *lines[2:]]))


def mask_lost(made: Path) -> None:
    """The picture is there and its mask is torn."""
    lines = (made / LOG).read_text().replace('"mask": ""', '"mask": "masks/torn.png"', 1)
    (made / LOG).write_text(lines)
    (made / "masks").mkdir()
    (made / "masks" / "torn.png").write_bytes((made / "images" / "1.png").read_bytes()[:300])


def nothing(made: Path) -> None:
    """A clean stop."""


@pytest.mark.parametrize(
    ("damage", "again_for"),
    [(nothing, []), (cut_short, []), (lost, ["1.png"]), (torn_inside, ["1.png"]), (mask_lost, ["0.png"])],
)
def test_a_cut_look_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], again_for: list[str]
) -> None:
    sources = fill(tmp_path / "images")
    whole = looked(how(tmp_path, sources), sources)
    files = {p.name: p.read_bytes() for p in (tmp_path / "made" / "images").iterdir()}
    again = tmp_path / "again"
    fill(again / "images")
    looked(how(again, sources), sources, stop_after=3)
    damage(again / "made")
    asked: list[str] = []
    import vez.dataset.look as module

    real = module._one
    monkeypatch.setattr(module, "_one", lambda h, file, sha: (asked.append(file), real(h, file, sha))[1])
    assert looked(how(again, sources), sources) == whole
    assert {p.name: p.read_bytes() for p in (again / "made" / "images").iterdir()} == files
    assert asked == [*again_for, "3.png", "4.png", "5.png", "6.png"]
    rows = [json.loads(line) for line in (again / "made" / LOG).read_text().splitlines()]
    assert sorted(row["picture"]["file"] for row in rows) == list(sources)


def test_a_picture_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    sources = fill(tmp_path / "images", 2)
    Image.new("RGB", (80, 80)).save(tmp_path / "images" / "1.png")
    with pytest.raises(DataError, match="changed while it was being read"):
        looked(how(tmp_path, sources), sources)


@given(st.lists(st.from_regex(r"[aAbB-]{1,4}(\.upper)?\.(jpg|png|JPG)", fullmatch=True), unique=True, max_size=12))
def test_training_names_are_different_on_any_file_system(files: list[str]) -> None:
    names = training_names(files, ("full", "upper", "lower"))
    assert set(names) == {(file, crop) for file in files for crop in ("full", "upper", "lower")}
    assert len({name.lower() for name in names.values()}) == 3 * len(files)


@pytest.mark.parametrize("stop_after", [None, 3])
def test_warnings_are_as_they_were(tmp_path: Path, stop_after: int | None) -> None:
    """Pillow warns of broken metadata; decoding in threads must neither let that through nor silence anything after."""
    sources = fill(tmp_path / "images", 12)
    before = list(warnings.filters)
    looked(how(tmp_path, sources), sources, stop_after=stop_after)
    assert list(warnings.filters) == before


def test_a_training_picture_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    sources = fill(tmp_path / "images", 2)
    into = how(tmp_path, sources)
    (tmp_path / "made" / "images" / "1.png").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*1\.png: Is a directory"):
        looked(into, sources)


def test_without_a_count_of_the_cores_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows cannot say which cores a process may use."""
    sources = fill(tmp_path / "images", 2)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert len(looked(how(tmp_path, sources), sources)) == 2
