"""The commands of the data, one after the other, as a person would type them; on the embedded base's own models."""

import json
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from vez.cli import MISTAKE, app
from vez.cli.pictures import FOUND

RUN = CliRunner()


def photograph(seed: int, *, width: int = 120, height: int = 160) -> Image.Image:
    """Areas and edges of several sizes, unlike any other."""
    dice = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells, weight in ((3, 80), (12, 50), (48, 30)):
        coarse = Image.fromarray(dice.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += weight * (np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST)) / 127.5 - 1)
    return Image.fromarray(np.clip(total + 127, 0, 255).astype(np.uint8))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project beside a heap of found pictures: seven good ones, a small one, a broken one, a copy."""
    heap = tmp_path / "heap"
    heap.mkdir()
    for i in range(7):
        photograph(i).save(heap / f"costume {i}.png")
    photograph(8, width=40, height=40).save(heap / "small.png")
    (heap / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (heap / "again.png").write_bytes((heap / "costume 3.png").read_bytes())
    words = ["--trigger", "zolka", "--noun", "coat", "--base", "tiny", "--resolution", "64"]
    made = RUN.invoke(app, ["init", str(tmp_path / "project"), *words])
    assert made.exit_code == 0, made.output
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "project" / "vez.toml").write_text(
        (tmp_path / "project" / "vez.toml").read_text().replace("held_out = 4 ", "held_out = 1 ")
    )
    return tmp_path / "project"


def vez(line: str, *, code: int = 0) -> Result:
    result = RUN.invoke(app, shlex.split(line))
    assert result.exit_code == code, f"{line}: {result.exit_code}\n{result.output}\n{result.stderr}"
    assert "Traceback" not in result.output
    return result


def test_from_a_heap_to_two_versions(project: Path) -> None:
    collected = vez("collect ../heap images").output
    names = sorted(p.name for p in (project / "images").iterdir() if not p.name.startswith("."))
    assert len(names) == 9 and "provenance.jsonl" in names, collected
    assert "broken.jpg" in collected and "again.png" in collected  # what was refused is said
    assert collected.endswith("Next: vez check v1\n")
    assert vez("collect ../heap images").output.count("taken: 0") == 1

    said = vez("check v1", code=FOUND).output
    assert "small.png: tiny" in said and "vez waive v1 tiny small.png" in said and "1 error" in said
    listed = json.loads(vez("check v1 --json", code=FOUND).stdout)["v1"]
    assert [f["check"] for f in listed if f["level"] == "error"] == ["tiny"]

    said = vez("waive v1 tiny smal.png --because 'it is not there'", code=MISTAKE).stderr
    assert "did you mean 'small.png'?" in said
    assert "Next: vez check v1" in vez("waive v1 tiny small.png --because 'the only one from behind'").output
    assert "accepted: the only one from behind" in vez("check v1").output
    waived = tomllib.loads((project / "vez.toml").read_text())["dataset"]["v1"]["waive"]
    assert waived == [{"check": "tiny", "file": "small.png", "reason": "the only one from behind"}]

    vez("crop v1 sheets/v1.png")
    with Image.open(project / "sheets" / "v1.png") as sheet:
        assert min(sheet.size) > 100

    first = names[0]
    (project / "captions" / f"{Path(first).stem}.txt").write_text("zolka, my own words")
    (project / "captions" / "nobody.txt").write_text("zolka, of no picture")
    said = vez("caption v1 --diff").stdout
    assert "(by hand)" in said and "{+zolka,+}" in said and said.count("trained:") == 8

    built = vez("build v1").output
    assert "v1: 7 to train on, 1 held out, in .vez/datasets/v1-" in built and built.endswith("Next: vez lint v1\n")
    linted = vez("lint v1").output
    assert "nobody.txt: caption-unused" in linted and "  sources " in linted and "the 7 pictures to train on" in linted
    assert json.loads(vez("lint v1 --json").stdout)["v1"]

    table = '\n[dataset.v2]\nimages = "images"\ncaptions = "captions"\nheld_out = 1\nresolution = 64\n'
    (project / "vez.toml").write_text((project / "vez.toml").read_text() + table)
    vez("exclude v2 small.png --because 'too small after all'")
    changes = vez("diff v1 v2 --html out/changes.html")
    assert "small.png: excluded by hand: too small after all" in changes.stdout
    assert "too small after all" in (project / "out" / "changes.html").read_text(encoding="utf-8")
    assert json.loads(vez("diff v1 v2 --json").stdout)["removed"]


def test_out_to_kohya_and_back(project: Path) -> None:
    vez("collect ../heap images")
    vez("export v1 ../kohya --layout kohya --repeats 3")
    folders = {p.name for p in Path("../kohya").rglob("*") if p.is_dir()}
    assert any(name.startswith("3_") for name in folders)
    said = vez("import ../kohya v9 --layout kohya").output
    assert "Next: vez check v9" in said
    back = tomllib.loads((project / "vez.toml").read_text())["dataset"]["v9"]
    assert len(list((project / back["images"]).glob("*.png"))) == 7  # one of eight was held out
    vez("build v9")
    assert "has a [dataset.v9] already" in vez("import ../kohya v9", code=MISTAKE).stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("collect nowhere images", "nowhere"),
        ("collect ftp:somewhere images", "commons:category:NAME"),
        ("collect commons:coats images", "[collect] contact"),
        ("check v9", "there is no [dataset.v9]"),
        ("crop v9 a.png", "there is no [dataset.v9]"),
        ("caption v9", "there is no [dataset.v9]"),
        ("lint v9", "there is no [dataset.v9]"),
        ("diff v1 v1", "compared with itself"),
        ("diff v1 v9", "there is no [dataset.v9]"),
        ("export v9 out", "there is no [dataset.v9]"),
        ("import nowhere v2", "nowhere"),
        ("waive v1 blury a.png --because x", "blury"),
        ("waive v9 blurred a.png --because x", "v9"),
        ("exclude v9 a.png --because x", "v9"),
        ("exclude v1 O.png --because x", "did you mean '0.png'?"),
        ("waive v1 blurred ../0.png --because x", "'../0.png'"),
        ("crop v1 images/0.png", "among the pictures of [dataset.v1]"),
        ("crop v1 sheet.jpg", "end in .png"),
        ("diff v1 v2 --html images/0.png", "end in .html"),
        ("export v1 out --repeats 3", "--layout kohya"),
        ("export v1 out --words coat", "--layout kohya"),
        ("check -c nowhere/vez.toml", "make one with `vez init`"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(project: Path, line: str, said: str) -> None:
    photograph(0).save(project / "images" / "0.png")
    before = {p: p.read_bytes() for p in project.rglob("*") if p.is_file() and ".vez" not in p.parts}
    result = vez(line, code=MISTAKE)
    assert said in result.stderr and len(result.stderr.strip().splitlines()) == 1
    after = {p: p.read_bytes() for p in project.rglob("*") if p.is_file() and ".vez" not in p.parts}
    assert {k: v for k, v in after.items() if ".collected" not in k.name} == before
