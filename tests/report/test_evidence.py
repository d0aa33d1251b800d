import json
import shutil
from pathlib import Path

import pytest
from study_on_disk import tear, write_rows

from vez.errors import StoreError
from vez.report.arms import arms_of, efforts_of
from vez.report.evidence import SampleRow, gather, inside, read_rows, setting
from vez.report.verdict import Effort
from vez.report.view import suite_note
from vez.store import making
from vez.sweep import Arm


@pytest.fixture
def own(study: Path, tmp_path: Path) -> Path:
    root = tmp_path / "project"
    shutil.copytree(study.parents[1], root)
    return root / "studies" / study.name


def test_everything_is_found(study: Path) -> None:
    evidence = gather(study)
    assert [run.name for run in evidence.runs] == ["v1-0", "v2-0", "v3-0", "v4-0"]
    assert [arm.label for arm in arms_of(evidence)] == ["v1", "v2", "v4", "no LoRA"]
    assert efforts_of(arms_of(evidence)) == {"v1": Effort(320, 32), "v2": Effort(40, 32), "v4": Effort(40, 64)}
    assert len(evidence.datasets) == 2
    assert len(evidence.drawn) == 4 * 8 * 2
    assert evidence.scores is not None and set(evidence.scores.metrics) == {"T0", "T1", "T2", "leak", "drift"}
    assert set(evidence.scores.pairs) == {("v1", "v2"), ("v1", "v4"), ("v2", "v4")}
    assert "held_out" in evidence.scores.not_measured["similarity"]
    assert evidence.absent == ()


def test_the_two_fixed_noise_losses_are_kept_apart(study: Path) -> None:
    run = gather(study).runs[0]
    assert [step for step, _ in run.held_out] == [step for step, _ in run.relearned]
    assert run.held_out[-1][1] - run.relearned[-1][1] > 0.005


def test_a_run_that_failed_says_how_far_it_came(study: Path) -> None:
    v3 = next(run for run in gather(study).runs if run.name == "v3-0")
    assert not v3.finished
    assert (v3.steps, v3.of) == (17, 40)
    assert "no longer finite" in v3.last_words


def test_a_run_whose_loss_burst_says_so_even_without_a_note(own: Path) -> None:
    log = own / "runs" / ".v3-0.partial" / "events.jsonl"
    kept = [line for line in log.read_text(encoding="utf-8").splitlines() if '"note"' not in line]
    last = json.loads(kept[-1]) | {"step": 18, "loss": "nan"}
    log.write_text("\n".join([*kept, json.dumps(last)]) + "\n", encoding="utf-8")
    v3 = next(run for run in gather(own).runs if run.name == "v3-0")
    assert (v3.steps, v3.last_words) == (18, "the loss was no longer finite")
    assert len(v3.losses) == 17


def test_a_study_cut_before_its_scores_is_read_and_says_so(own: Path) -> None:
    tear(own)
    assert gather(own).scores is None
    assert gather(own).absent == ("No scores were computed.",)


def test_a_dataset_that_was_deleted_from_the_store_is_said(own: Path) -> None:
    shutil.rmtree(own.parents[1] / ".vez")
    evidence = gather(own)
    assert evidence.datasets == ()
    assert len(evidence.absent) == 2 and "vez build" in evidence.absent[0]


def test_no_study_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="vez study"):
        gather(tmp_path / "nothing")
    with pytest.raises(StoreError, match="neither runs nor samples"):
        gather(tmp_path)


@pytest.mark.parametrize("file", ["../../../vez.toml", "/etc/passwd", "a/../../b", "..\\b"])
def test_a_row_cannot_reach_outside_its_artifact(own: Path, file: str) -> None:
    rows = own / "samples" / "samples.jsonl"
    first = json.loads(rows.read_text(encoding="utf-8").splitlines()[0])
    write_rows(rows, [{**first, "file": file}])
    with pytest.raises(StoreError, match="outside"):
        gather(own)
    with pytest.raises(StoreError, match="outside"):
        inside(own, file)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"arm": "v1"}', '{"arm": 1, "prompt": "p", "text": "t", "seed": 0, "file": "f"}']
)
def test_a_line_that_is_not_a_row_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"rows\.jsonl, line 1"):
        list(read_rows(tmp_path / "rows.jsonl", SampleRow))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"metrics": {"T1": {}}, "arms": {}}'])
def test_a_summary_that_is_none_is_refused(own: Path, text: str) -> None:
    (own / "scores" / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="score again"):
        gather(own)


def test_a_setting_is_found_wherever_it_lies() -> None:
    config = {"variant": {"rank": 8, "alpha": None}, "steps": 10, "deep": {"deeper": {"noun": "dog"}}}
    assert [setting(config, name) for name in ("rank", "steps", "noun", "alpha", "none")] == [8, 10, "dog", None, None]


def test_the_suite_and_the_control_are_said(tmp_path: Path) -> None:
    about = {"suite": "v1", "sha256": "ab" * 32, "kind": "garment", "profile": "standard"}
    with making(tmp_path / "s" / "samples", kind="samples", parents={}, config={"suite": about}, version=2) as made:
        (made.path / "samples.jsonl").write_bytes(b"")
        (made.path / "controls.json").write_text('{"strength_0": {"v1": 0, "v2": 1}}')
    told = suite_note(gather(tmp_path / "s"))
    assert (
        "vez's suite v1, worded for a concept of the kind garment (SHA-256 abababababababab), profile standard" in told
    )
    assert "apart by at most 1 of 255" in told
    (tmp_path / "s" / "samples" / "controls.json").write_text("[]")
    with pytest.raises(StoreError, match=r"controls\.json"):
        suite_note(gather(tmp_path / "s"))


def test_an_arm_of_an_earlier_step_knows_its_run_and_what_it_cost(tmp_path: Path) -> None:
    run = tmp_path / "s" / "runs" / "v1-0"
    with making(run, kind="run", parents={}, config={"name": "v1", "steps": 40, "rank": 8}, version=1) as made:
        (made.path / "events.jsonl").write_bytes(b"")
    arms = {
        "v1@10x0.5": Arm(None, 0.5, "v1", "v1-0", 0, 10, last=False).record("00"),
        "v1": Arm(None, 1.0, "v1", "v1-0", 0, 40, last=True).record("01"),
        "base": None,
    }
    config = {"suite": {"suite": "own", "sha256": None}, "arms": arms}
    rows = [{"arm": arm, "prompt": "p", "text": "t", "seed": 0, "file": f"{arm}/p-0.png"} for arm in arms]
    with making(tmp_path / "s" / "samples", kind="samples", parents={}, config=config, version=2) as made:
        (made.path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = arms_of(gather(tmp_path / "s"))
    assert [(arm.name, arm.run and arm.run.name, arm.step, arm.strength) for arm in found] == [
        ("v1@10x0.5", "v1-0", 10, 0.5),
        ("v1", "v1-0", None, 1.0),
        ("base", None, None, 1.0),
    ]
    assert {name: cost.steps for name, cost in efforts_of(found).items()} == {"v1@10x0.5": 10, "v1": 40}
