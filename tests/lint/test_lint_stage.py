import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from planted import DEMO, TRIGGER, checks, config_of, drawn, frozen, good_scenes, linted, row_of, told

from vez.config import Config, Study
from vez.config import load as load_config
from vez.dataset import Dataset
from vez.demo.world.scene import WEATHERS, Scene
from vez.errors import ConfigError, StoreError
from vez.events import Done, Event
from vez.images.findings import Finding, open_errors
from vez.images.provenance import Provenance
from vez.lint.artifact import KIND, VERSION, Lint, load, save
from vez.lint.stage import lint
from vez.lint.tokens import Tokens
from vez.metrics.embed import Clip
from vez.store import making

SCENES = good_scenes(20)


def of_scenes(root: Path, scenes: list[Scene], captions: list[str] | None = None, *, held_out: int = 2) -> Dataset:
    said = [told(scene) for scene in scenes] if captions is None else captions
    rows = [
        row_of(i, caption, split="train" if i < len(said) - held_out else "held_out") for i, caption in enumerate(said)
    ]
    return frozen(root, rows, drawn(scenes))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens, clip: Clip) -> Lint:
    """The lint of a good set."""
    root = tmp_path_factory.mktemp("good")
    return linted(config_of(root), of_scenes(root, SCENES), tokens=tokens, clip=clip)


def test_a_good_set_gives_no_error_and_no_warning(good: Lint) -> None:
    assert checks(good) == []
    assert checks(good, "info") == ["trigger-pieces"]


def test_where_variants_draw_their_words_the_wordings_are_judged(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    captions = [
        f"{{{told(scene)}|a girl in a folk costume}}" if i == 4 else told(scene) for i, scene in enumerate(SCENES)
    ]
    dataset = of_scenes(tmp_path, SCENES, captions)
    plain = config_of(tmp_path)

    def drawing(**variant: object) -> Config:
        study = {"steps": 100, "variant": {"a": {"dataset": "other"}, "b": {"wildcards": True, **variant}}}
        return plain.model_copy(update={"study": {"s": Study.model_validate(study)}})

    for config in (drawing(dataset="v1"), drawing(dataset="other", prior="v1")):
        found = linted(config, dataset, tokens=tokens, clip=clip)
        (missing,) = [f for f in found.findings if f.check == "trigger-missing"]
        assert missing.file == "0004.jpg" and "(in 1 of 2 wordings)" in str(missing.value)
        assert "{" not in "".join(str(f.value) for f in found.findings), "CLIP too reads a wording"
    raw = linted(drawing(dataset="other"), dataset, tokens=tokens, clip=clip)
    assert "trigger-missing" not in {f.check for f in raw.findings}


def test_one_background_that_nobody_names_is_seen(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    same = [replace(s, place="forest", weather="snow") for s in SCENES]
    captions = [told(scene).split(", forest")[0] for scene in same]
    found = linted(config_of(tmp_path), of_scenes(tmp_path, same, captions, held_out=0), tokens=tokens, clip=clip)
    # without the place some captions say the same, and a CLIP that knows places best can hardly match the others
    assert [c for c in checks(found) if c not in ("caption-alike", "caption-misfit")] == ["one-background", "unnamed"]
    values = {f.check: str(f.value) for f in found.findings}
    assert values["one-background"].startswith("forest on ") and "named in 0 captions" in values["one-background"]
    assert values["unnamed"].startswith("light snow on ")
    absorbed = {(a.group, a.label): a.verdict for a in found.diversity.attributes}
    assert absorbed["background", "forest"] == absorbed["light", "snow"] == "absorbed by the trigger"
    numbers = {measure.name: measure.effective for measure in found.diversity.measures}
    assert numbers["backgrounds"] < 2 and numbers["sources"] == pytest.approx(20)


def test_a_background_that_is_named_is_told_by_the_captions(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    same = [replace(s, place="forest", weather=WEATHERS[i % 5]) if i % 3 else s for i, s in enumerate(SCENES)]
    found = linted(config_of(tmp_path), of_scenes(tmp_path, same), tokens=tokens, clip=clip)
    assert checks(found) == ["one-background"]
    (finding,) = [f for f in found.findings if f.check == "one-background"]
    assert "told by caption" in str(finding.value)
    assert any(a.verdict == "controlled by words" for a in found.diversity.attributes if a.label == "forest")


def test_one_framing_and_one_pose(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    same = [replace(s, view="full", pose="waving") for s in SCENES]
    found = linted(config_of(tmp_path), of_scenes(tmp_path, same, held_out=0), tokens=tokens, clip=clip)
    assert checks(found) == ["fused", "one-framing", "one-pose"]  # "waving" is in every caption
    assert found.diversity.map is not None
    counts = dict(zip(found.diversity.map.rows, found.diversity.map.counts, strict=True))
    assert sum(counts["full"]) >= 16 and not counts["detail"][0]
    assert {"seated", "details (hem, sleeve)"} <= {a.add for a in found.diversity.advice}


def test_swapped_captions_do_not_fit(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    captions = [told(scene) for scene in SCENES]
    far = next(i for i in range(1, 18) if SCENES[i].place != SCENES[0].place and SCENES[i].view != SCENES[0].view)
    captions[0], captions[far] = captions[far], captions[0]
    found = linted(config_of(tmp_path), of_scenes(tmp_path, SCENES, captions), tokens=tokens, clip=clip)
    assert checks(found) == ["caption-misfit"]
    assert {f.file for f in found.findings if f.check == "caption-misfit"} == {"0000.jpg", f"{far:04d}.jpg"}


def test_the_same_picture_on_both_sides_is_seen_by_clip(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    twins = [*SCENES[:-1], SCENES[2]]
    found = linted(config_of(tmp_path), of_scenes(tmp_path, twins), tokens=tokens, clip=clip)
    (finding,) = [f for f in found.findings if f.check == "shared-source"]
    assert (finding.file, finding.other, finding.level) == ("0019.jpg", "0002.jpg", "warning")
    off = config_of(tmp_path, checks={"same_scene": 1.0})
    assert "shared-source" not in checks(linted(off, of_scenes(tmp_path, twins), tokens=tokens, clip=clip))


def test_planted_words_and_records_come_out_together(tmp_path: Path, tokens: Tokens) -> None:
    good = [f"{TRIGGER}, a girl in a costume {i}, place{i}" for i in range(14)]
    rows = [row_of(i, caption) for i, caption in enumerate(good)]
    rows[3] = replace(rows[3], caption="a girl in a costume and a hat")
    rows[4] = replace(rows[4], caption="")
    rows[5] = replace(rows[5], split="held_out", group="g6")
    rows[7] = replace(rows[7], width=96)
    records = [
        Provenance(row.source, author=f"{i % 4}", licence="CC-BY-4.0", people="none") for i, row in enumerate(rows)
    ]
    records[8] = replace(records[8], licence="")
    records[9] = replace(records[9], licence="CC-BY-ND-4.0", people="identifiable")
    config = config_of(tmp_path, project={"public": True})
    found = linted(config, frozen(tmp_path, rows, provenance=records), tokens=tokens)
    assert {(f.check, f.file, f.level) for f in found.findings if f.level != "info"} == {
        ("trigger-missing", "0003.jpg", "error"),
        ("caption-missing", "0004.jpg", "error"),
        ("shared-source", "0005.jpg", "error"),
        ("lone-bucket", "0007.jpg", "warning"),
        ("licence-missing", "0008.jpg", "error"),
        ("no-derivatives", "0009.jpg", "warning"),
        ("face", "0009.jpg", "warning"),
        ("fused", "*", "warning"),  # "girl", in 12 of 13
    }


def test_the_demos_hand_captions_have_no_error_and_only_true_warnings(
    tmp_path: Path, tokens: Tokens, clip: Clip
) -> None:
    """All captions lack the noun "costume"; 23 of the 34 pictures show the whole figure (vez.demo.make_project)."""
    files = sorted((DEMO / "images" / "v2").glob("nosnja*"))
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (128, 128)))
    captions = [(DEMO / "captions" / "v2" / f"{file.stem}.txt").read_text().strip() for file in files]
    rows = [
        row_of(i, caption, source=file.name, split="held_out" if i in (5, 8, 12, 15) else "train")
        for i, (file, caption) in enumerate(zip(files, captions, strict=True))
    ]
    config = load_config(DEMO / "vez.toml").model_copy(update={"root": tmp_path})
    dataset = frozen(tmp_path, rows, lambda i: pictures[i], name="v2")
    start = time.process_time()
    found = linted(config, dataset, tokens=tokens, clip=clip, name="v2")
    assert time.process_time() - start < 6  # measured: 1.8 s
    assert open_errors(found.findings) == 0
    # waived or not, so that the demo may accept what is true
    assert {f.check for f in found.findings if f.level == "warning"} == {"noun-missing", "one-framing"}
    assert len(found.findings) == 4  # and the trigger's pieces, and how long the study trains
    trust = {t.group: t.state for t in found.diversity.trust}
    assert trust["background"] == trust["light"] == "agrees" and trust["pose"] == trust["wearer"] == "disagrees"


def test_what_needs_a_clip_is_said_to_be_missing(good: Lint, tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    blind = linted(config_of(tmp_path), of_scenes(tmp_path, SCENES), tokens=tokens).diversity
    assert {"whether captions fit their pictures", "what no caption names"} <= set(blind.not_measured)
    assert blind.clip == "" and blind.attributes == ()
    assert {m.name for m in blind.measures} >= {"sources", "backgrounds", "colours"}  # the captions tell of places
    seeing = good.diversity
    assert "whether captions fit their pictures" not in seeing.not_measured
    assert "no words for front, side, back" in seeing.not_measured["views by sight"]
    assert seeing.clip.endswith(clip.sha256[:12])


def test_a_waiver_keeps_the_finding_with_its_reason(tmp_path: Path, tokens: Tokens) -> None:
    dataset = frozen(tmp_path, [row_of(i, f"{TRIGGER} costume {i}" if i else "a costume") for i in range(13)])
    plain = linted(config_of(tmp_path), dataset, tokens=tokens)
    assert checks(plain) == ["trigger-missing"] and open_errors(plain.findings) == 1
    waive = [{"check": "trigger-missing", "file": "0000.jpg", "reason": "shows the class"}]
    waived = linted(config_of(tmp_path, waive=waive), dataset, tokens=tokens)
    assert checks(waived) == [] and open_errors(waived.findings) == 0
    assert [f.waived for f in waived.findings if f.check == "trigger-missing"] == ["shows the class"]


def test_what_is_there_is_not_made_again_and_what_changed_is(tmp_path: Path, tokens: Tokens) -> None:
    dataset = frozen(tmp_path, [row_of(i, f"{TRIGGER} costume {i}") for i in range(12)])
    into = tmp_path / ".vez" / "lints" / "v1"

    def run(**how: object) -> list[Event]:
        config = config_of(tmp_path, **how)  # type: ignore[arg-type]
        return list(lint(config, "v1", dataset, into=into, clip=None, tokenizer=tokens))

    first = run()
    assert len(first) > 1 and isinstance(first[-1], Done) and first[-1].artifact_path == into
    assert run() == [first[-1]]
    assert load(into).dataset == dataset.id
    for change in ({"project": {"noun": "robe"}}, {"project": {"public": True}}, {"role": "class"},
                   {"waive": [{"check": "length", "reason": "ok"}]}):  # fmt: skip
        assert run(**change)[-1] != first[-1], change
    with pytest.raises(ConfigError, match=r"no \[dataset.v9\]"):
        list(lint(config_of(tmp_path), "v9", dataset, into=into, clip=None, tokenizer=tokens))


def test_a_class_dataset_is_linted_by_its_own_rules(tmp_path: Path, tokens: Tokens) -> None:
    rows = [row_of(i, f"a folk costume, thing{i}") for i in range(12)]
    found = linted(config_of(tmp_path, role="class"), frozen(tmp_path, rows), tokens=tokens)
    assert checks(found) == [] and checks(found, "info") == []


def test_a_picture_that_was_changed_is_refused(tmp_path: Path, tokens: Tokens) -> None:
    dataset = frozen(tmp_path, [row_of(i, f"{TRIGGER} costume {i}") for i in range(3)])
    for damage in (lambda p: Image.new("RGB", (8, 8)).save(p), lambda p: p.write_bytes(b"no picture")):
        damage(dataset.path / "images" / "0001.png")
        with pytest.raises(StoreError):
            linted(config_of(tmp_path), dataset, tokens=tokens)
    assert not (tmp_path / ".vez" / "lints" / dataset.path.name).exists()


def test_an_empty_dataset_is_linted(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    found = linted(config_of(tmp_path), frozen(tmp_path, []), tokens=tokens, clip=clip)
    assert checks(found) == ["few-sources"] and found.diversity.pictures == 0


def test_hostile_captions_pass_through(tmp_path: Path, tokens: Tokens, clip: Clip) -> None:
    nasty = [
        "<script>alert(1)</script>",
        "\ud800 \x1b[31m",
        "{trigger} {0} %s",
        "\u202e",
        "a" * 3000,
        "漢字" * 200,
        "\0",
    ]
    rows = [row_of(i, f"{TRIGGER}, {text}") for i, text in enumerate(nasty)]
    found = linted(config_of(tmp_path), frozen(tmp_path, rows), tokens=tokens, clip=clip)
    assert found.findings
    assert not any("\x1b" in f"{f.value}{f.fix}" for f in found.findings)


DAMAGE = [
    lambda row: row.pop("measures"),
    lambda row: row.update(measures=[{"name": "x"}]),
    lambda row: row["measures"][0].update(effective="many"),
    lambda row: row.update(map={"rows": ["a"], "columns": ["b"], "counts": [], "row_group": "", "column_group": "",
                                "n": 1, "of": 1}),
    lambda row: row.update(not_measured=[]),
    lambda row: row["trust"].append({"group": "x", "state": "y", "unheard": 1}),
]  # fmt: skip


@pytest.mark.parametrize("damage", range(len(DAMAGE)))
def test_a_damaged_artifact_is_refused(damage: int, tmp_path: Path, tokens: Tokens) -> None:
    dataset = frozen(tmp_path, [row_of(i, f"{TRIGGER} costume {i}") for i in range(12)])
    path = linted(config_of(tmp_path), dataset, tokens=tokens).path
    file = path / "diversity.json"
    row = json.loads(file.read_bytes())
    DAMAGE[damage](row)
    file.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(StoreError, match="lint again"):
        load(path)


def test_damaged_findings_and_other_artifacts_are_refused(tmp_path: Path, tokens: Tokens) -> None:
    dataset = frozen(tmp_path, [row_of(i, f"{TRIGGER} costume {i}") for i in range(12)])
    path = linted(config_of(tmp_path), dataset, tokens=tokens).path
    whole = (path / "findings.jsonl").read_text()
    for text in ("[]\n", '{"file": "*"}\n', whole.replace('"info"', '"fatal"'), whole.replace('"*"', "7")):
        (path / "findings.jsonl").write_text(text)
        with pytest.raises(StoreError, match="lint again"):
            load(path)
    with pytest.raises(StoreError, match="not a lint"):
        load(dataset.path)


def test_what_is_saved_is_what_is_loaded(good: Lint, tmp_path: Path) -> None:
    assert good.diversity.map and good.diversity.advice and good.diversity.trust and good.diversity.attributes
    parents = {"dataset": good.dataset}
    with making(tmp_path / "again", kind=KIND, parents=parents, config={}, version=VERSION) as made:
        save(made.path, list(good.findings), good.diversity)
    again = load(tmp_path / "again")
    assert (again.findings, again.diversity, again.dataset) == (good.findings, good.diversity, good.dataset)


def test_what_build_found_about_captions_by_hand_is_lint_s_to_say(tmp_path: Path, tokens: Tokens) -> None:
    frozen_set = of_scenes(tmp_path, SCENES)
    unused = Finding("typo.txt", "caption-unused", "", "", "no training picture has this name", "rename it")
    tiny = Finding("0001.jpg", "tiny", 84, 128, "is small", "find a larger one", level="error")
    found = linted(config_of(tmp_path), replace(frozen_set, findings=(unused, tiny)), tokens=tokens, clip=None)
    assert [f for f in found.findings if f.check == "caption-unused"] == [unused]
    assert "tiny" not in {f.check for f in found.findings}  # that is for `vez check` to say
