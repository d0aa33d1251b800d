"""The stages of the data as a project asks for them: what they keep in memory, and what the sheet says of the build."""

import gc
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from vez import curate
from vez.config import Config, Project
from vez.dataset.look import Look, planned
from vez.errors import ConfigError
from vez.events import Event, Item, Note, Stage
from vez.images import boxes
from vez.metrics import embed

PROJECT = Project(base="tiny", trigger="zolka", noun="coat", describes="a red coat")
Made = TypeVar("Made")


def texture(seed: int, width: int = 90, height: int = 70) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST)


def configured(root: Path, **recipe: object) -> Config:
    return Config(
        project=PROJECT,
        dataset={"v1": {"images": "images", "resolution": 64, "captions": "captions", **recipe}},
        root=root,
    )


def fill(root: Path, count: int) -> None:
    for name in ("images", "captions"):
        (root / name).mkdir()
    for i in range(count):
        texture(i).save(root / "images" / f"{i}.png")
        (root / "captions" / f"{i}.txt").write_text(f"zolka, number {i}")


def through(stage: Generator[Event, None, Made]) -> tuple[Made, list[Event]]:
    events = []
    while True:
        try:
            events.append(next(stage))
        except StopIteration as end:
            return end.value, events


def test_a_lint_that_is_there_is_found_without_loading_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 4)
    config = configured(tmp_path)
    first, events = through(curate.lint(config, "v1"))
    loads: list[str] = []
    load = embed.load
    monkeypatch.setattr(embed, "load", lambda source, **how: loads.append(source) or load(source, **how))
    again, then = through(curate.lint(config, "v1"))
    assert again == first and then[-1] == events[-1] and not loads
    other = Config(**{**dict(config), "project": PROJECT.model_copy(update={"noun": "jacket"})})
    through(curate.lint(other, "v1"))
    assert loads == [embed.clip_for("tiny")], "what was asked is another lint"
    for file in (tmp_path / ".vez" / "vectors").glob("*.sha256"):
        file.write_text("0" * 64)  # as if other weights had been there
    through(curate.lint(other, "v1"))
    assert len(loads) == 2


def counting(seen: list[int], of: Callable[..., object]) -> Callable[..., object]:
    """``of``, with how many of the pictures that it gave before are still in memory noted at each call."""
    given: list[weakref.ref[Image.Image]] = []

    def counted(*args: object, **more: object) -> object:
        gc.collect()
        seen.append(sum(one() is not None for one in given))
        result = of(*args, **more)
        image = result[0] if isinstance(result, tuple) else result
        given.append(weakref.ref(image))  # type: ignore[arg-type]
        return result

    return counted


def test_a_sheet_holds_so_many_pictures_and_goes_on_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 7)
    (tmp_path / "images" / "broken.png").write_bytes(b"x")
    monkeypatch.setattr(curate, "ON_A_SHEET", 3)
    config = configured(tmp_path, exclude=[{"file": "0.png", "reason": "mine"}])
    sheets, events = through(curate.sheet(config, "v1", tmp_path / "out" / "v1.png"))
    assert [path.name for path in sheets] == ["v1.png", "v1-2.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["v1-2.png", "v1.png"]
    for path in sheets:
        with Image.open(path) as image:
            image.load()
    assert [e.text.partition(":")[0] for e in events if isinstance(e, Note)] == ["left out broken.png"]
    assert [e.done for e in events if isinstance(e, Item)] == list(range(1, 8))


def test_a_sheet_keeps_no_picture_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 8)
    alive: list[int] = []
    monkeypatch.setattr(curate, "planned", counting(alive, planned))
    through(curate.sheet(configured(tmp_path), "v1", tmp_path / "v1.png"))
    assert len(alive) == 8 and max(alive) <= 1


@pytest.mark.parametrize("recipe", [{}, {"masks": "masks"}, {"background": "black"}, {"crops": ["upper", "full"]}])
def test_the_sheet_cuts_as_the_build_does(tmp_path: Path, recipe: dict[str, object]) -> None:
    fill(tmp_path, 3)
    (tmp_path / "masks").mkdir()
    drawn = np.zeros((70, 90), np.uint8)
    drawn[:, 70:] = 255
    Image.fromarray(drawn).save(tmp_path / "masks" / "1.png")
    clear = texture(5, 300, 200).convert("RGBA")
    clear.putalpha(Image.fromarray(np.pad(np.full((200, 100), 255, np.uint8), ((0, 0), (200, 0)))))
    clear.save(tmp_path / "images" / "clear.png")
    (tmp_path / "captions" / "clear.txt").write_text("zolka")
    (tmp_path / "images" / "boxes.toml").write_text('["0.png"]\nfull = [3, 0, 67, 64]\n')
    config = configured(tmp_path, **recipe)
    made, _ = through(curate.built(config, "v1"))
    how = Look(config.dataset["v1"], tmp_path, boxes.read(tmp_path / "images"))
    for row in made.rows:
        picture = planned(how, row.source)
        assert not isinstance(picture, str)
        assert row.box in [cut.box for cut in picture[1] if cut.crop == row.crop], row.source
    if "masks" in recipe:
        assert next(row.box for row in made.rows if row.source == "1.png")[2] == 90


def test_a_sheet_refuses_a_box_for_nobody(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / "images" / "boxes.toml").write_text('["nobody.png"]\nfull = [3, 0, 67, 64]\n')
    with pytest.raises(ConfigError, match=r"boxes.toml names 'nobody.png'"):
        through(curate.sheet(configured(tmp_path), "v1", tmp_path / "v1.png"))


def test_clip_looks_at_one_picture_at_a_time_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 5)
    texture(3).convert("L").convert("RGB").save(tmp_path / "images" / "3-grey.png")
    (tmp_path / "images" / "2-broken.png").write_bytes(b"x")
    alive: list[int] = []
    monkeypatch.setattr(curate, "decode", counting(alive, curate.decode))
    monkeypatch.setattr(curate, "_TOGETHER", 3)
    findings, events = through(curate.check(configured(tmp_path, checks={"same_scene": 0}), "v1"))
    assert max(alive) <= 1
    assert next(e for e in events if isinstance(e, Stage)) == Stage("scenes", 7, "v1")
    assert [e.done for e in events if isinstance(e, Item) and e.name == "scenes"] == [3, 6, 7]
    assert ("2-broken.png", "unreadable") in {(f.file, f.check) for f in findings}
    assert all("2-broken.png" not in (f.file, f.other) for f in findings if f.check == "same-scene")
    assert any(f.check == "same-scene" for f in findings)


def test_only_broken_pictures_are_checked_without_a_crash(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    (tmp_path / "images" / "broken.png").write_bytes(b"x")
    findings, _ = through(curate.check(configured(tmp_path), "v1"))
    assert [f.check for f in findings] == ["unreadable"]
