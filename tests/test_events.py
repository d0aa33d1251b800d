import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.errors import StoreError
from vez.events import Done, Event, EventLog, Note, Sampled, Saved, Stage, Step, Validated, as_json, from_json, read

EVENTS: list[Event] = [
    Stage("train", 10, "v1"),
    Stage("score"),
    Step("v1-0", 1, 10, 0.5, 1e-4, 5e-5, 1.25, 0.01),
    Validated("v1-0", 5, 0.25, (0.1, 0.2)),
    Saved("v1-0", 10, Path("runs/v1-0/lora.safetensors")),
    Sampled("v1", "p1", 0, Path("samples/v1/p1-0.png")),
    Note("ношња\nin two lines\u2028"),
    Done(Path("runs/v1-0"), "ab" * 32),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_event_survives_json(event: Event) -> None:
    assert from_json(json.loads(json.dumps(as_json(event), allow_nan=False))) == event


@given(st.floats(), st.integers(0, 10**9), st.text())
def test_any_number_and_text_survives(loss: float, step: int, run: str) -> None:
    back = from_json(json.loads(json.dumps(as_json(Step(run, step, 1, loss, 0.0, 0.0, 0.0, 0.0)), allow_nan=False)))
    assert isinstance(back, Step) and back.run == run and back.step == step
    assert back.loss == loss or (math.isnan(loss) and math.isnan(back.loss))


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"event": "boom"},
        {"event": "note"},
        {"event": "note", "text": 3},
        {"event": "note", "text": "a", "more": 1},
        {"event": "stage", "name": "a", "total": "ten"},
        {"event": "done", "artifact_path": 1, "id": "a"},
        {"event": "validated", "run": "a", "step": True, "loss": 0.1},
    ],
)
def test_what_is_no_event_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(StoreError):
        from_json(row)


def test_log_appends_across_openings(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    for event in EVENTS:
        with EventLog(path) as log:
            log.append(event)
    assert list(read(path)) == EVENTS


@given(cut=st.integers(0, 400))
def test_a_torn_last_line_is_left_out_and_cut_off_on_reopening(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    with EventLog(path) as log:
        for event in EVENTS:
            log.append(event)
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    whole = path.read_bytes().count(b"\n")
    assert list(read(path)) == EVENTS[:whole]
    with EventLog(path) as log:
        log.append(Note("again"))
    assert list(read(path)) == [*EVENTS[:whole], Note("again")]


def test_a_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "note", "text": "a"}\n' + b"x" * 200_000)
    with EventLog(path) as log:
        log.append(Note("b"))
    assert list(read(path)) == [Note("a"), Note("b")]


@pytest.mark.parametrize("line", [b"{not json}\n", b"[1]\n", b"\xff\xfe\n", b'{"event": "note"}\n'])
def test_a_broken_whole_line_is_an_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line)
    with pytest.raises(StoreError):
        list(read(path))


def test_absent_or_unwritable(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        list(read(tmp_path / "none.jsonl"))
    with pytest.raises(StoreError, match="cannot write"):
        EventLog(tmp_path)
