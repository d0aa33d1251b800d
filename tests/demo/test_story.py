"""The demo's two datasets: what the checks throw out of the found pictures, and why."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image

from vez import config, dataset, study
from vez.curate import check
from vez.dataset import Dataset
from vez.dataset.diff import diff
from vez.demo import copy_project
from vez.events import Done, Event
from vez.images.findings import Finding, open_errors


class Silent:
    """A captioner that says the same of everything."""

    identity = "silent"

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        return ["a woman wearing a folk costume"] * len(images)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[config.Config, Dataset, Dataset]:
    folder = tmp_path_factory.mktemp("demo")
    copy_project(folder)
    loaded = config.load(folder / "vez.toml")
    made = []
    for name in ("v1", "v2"):
        *_, done = dataset.build(loaded, name, captioner=Silent())
        assert isinstance(done, Done)
        made.append(dataset.load(done.artifact_path))
    return loaded, made[0], made[1]


def findings(loaded: config.Config, name: str) -> list[Finding]:
    stage = check(loaded, name)
    events: list[Event] = []
    try:
        while True:
            events.append(next(stage))
    except StopIteration as end:
        return list(end.value)


def test_each_bad_picture_is_found_for_the_right_reason(
    built: tuple[config.Config, Dataset, Dataset],
) -> None:
    loaded, *_ = built
    found = findings(loaded, "v1")
    assert {(f.file, f.check) for f in found if f.level == "error"} == {
        ("found-small-2.jpg", "tiny"),
        ("found-small-7.jpg", "tiny"),
    }
    assert {(f.file, f.check) for f in found if f.level == "warning"} == {
        ("found-blurred-1.jpg", "blurred"),
        ("found-blurred-4.jpg", "blurred"),
        ("nosnja-00.jpg", "near-duplicate"),
        ("nosnja-06.jpg", "near-duplicate"),
    }
    assert open_errors(found) == 2 and open_errors(findings(loaded, "v2")) == 0


def test_version_2_leaves_them_out_and_says_why(built: tuple[config.Config, Dataset, Dataset]) -> None:
    _, v1, v2 = built
    assert {one.file: one.check for one in v2.dropped} == {
        **{f"found-blurred-{i}.jpg": "blurred" for i in (1, 4)},
        **{f"found-small-{i}.jpg": "tiny" for i in (2, 7)},
        **{f"found-mirrored-{i}.jpg": "near-duplicate" for i in (0, 6)},
        **{f"found-other-{i}.jpg": "excluded" for i in (0, 1)},
    }
    assert (len(v1.rows), len(v2.train), len(v2.held_out)) == (24, 30, 4)
    changes = diff(v1, v2)
    assert {single.row.source for single in changes.removed} == {one.file for one in v2.dropped}
    assert len(changes.captions) == 16 and len(changes.added) == 18


def test_what_judges_is_trained_on_by_nobody(built: tuple[config.Config, Dataset, Dataset]) -> None:
    _, v1, v2 = built
    trained = {row.source_sha256 for one in (v1, v2) for row in one.train}
    assert not trained & {row.source_sha256 for row in v2.held_out}


def test_a_study_is_told_which_judge_was_trained_on(built: tuple[config.Config, Dataset, Dataset]) -> None:
    _, v1, v2 = built
    assert not list(study.shared_pictures({"v1": v1, "v2": v2}))
    learner = replace(v2, rows=tuple(replace(row, split="train") for row in v2.held_out))
    told = [note.text for note in study.shared_pictures({"v2": v2, "v3": learner})]
    assert len(told) == 4 and all("is held out of v2, but v3 trains on it" in text for text in told)
