"""A run told to TensorBoard and W&B, and read back with their own formats; what breaks there stops nothing here."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vez import mirror
from vez.errors import MissingExtra
from vez.events import Done, Event, EventLog, Note, Previewed, Saved, Stage, Step, Validated
from vez.mirror import check, mirrored
from vez.store import making

RUN = "v1-0"


def events_of(steps: range, partial: Path) -> Iterator[Event]:
    for step in steps:
        if step:
            yield Step(RUN, step, 4, 1 / step, 1e-4, 5e-5, 0.5, 0.25, 0.125 if step > 1 else None)
        if step % 2 == 0:
            yield Validated(RUN, step, 0.5 - step / 10, (0.25, 0.75))
            path = Path("samples") / f"step-{step:06d}-1.png"
            (partial / path).parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 16, 3), step, np.uint8)).save(partial / path)
            yield Previewed(RUN, step, "a photo of zolka", path)


def a_pass(into: Path, steps: range, *, kept: int = 0, end: bool = True) -> Iterator[Event]:
    """What `train` yields and writes: the log cut back to ``kept``, then steps; without its end, it is killed."""
    try:
        with making(into, kind="run", parents={}, config={}, version=1) as made:
            (made.path / "events.jsonl").unlink(missing_ok=True)
            with EventLog(made.path / "events.jsonl") as log:
                for event in events_of(range(kept + 1), made.path) if kept else ():
                    log.append(event)
                yield Stage("train", 4)
                for event in events_of(steps, made.path):
                    log.append(event)
                    yield event
                if not end:
                    raise KeyboardInterrupt
                yield Saved(RUN, 4, Path("lora.safetensors"), 0.5, 0.25)
        yield Done(into, made.id)
    except KeyboardInterrupt:
        return


def told(into: Path, folder: Path, kinds: Any, **rest: Any) -> list[Event]:
    return list(mirrored(a_pass(into, **rest), kinds, runs=[into], folder=folder))


def board(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0, IMAGES: 0})
    found.Reload()
    return found


def test_tensorboard_reads_it_all(tmp_path: Path) -> None:
    plain = list(a_pass(tmp_path / "a" / "v1-0", range(5)))
    handed = told(tmp_path / "b" / "v1-0", tmp_path / "b", ["tensorboard"], steps=range(5))
    assert [type(event) for event in handed] == [type(event) for event in plain], "events are handed on as they are"
    found = board(tmp_path / "b" / "tensorboard" / RUN)
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [
        (step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)
    ]
    tags = {"loss", "gradient norm", "rate/unet", "rate/text", "seconds", "drift", "saved/norm", "saved/change"}
    assert set(found.Tags()["scalars"]) == tags | {"held_out/loss", "held_out/band 1", "held_out/band 2"}
    assert [one.step for one in found.Scalars("held_out/loss")] == [0, 2, 4]
    pictures = found.Images("samples/1")
    assert [(one.step, one.width, one.height) for one in pictures] == [(0, 16, 8), (2, 16, 8), (4, 16, 8)]
    file = tmp_path / "b" / "v1-0" / "samples" / "step-000002-1.png"
    assert pictures[1].encoded_image_string == file.read_bytes()


def test_a_cut_run_goes_on_with_nothing_twice_and_nothing_missing(tmp_path: Path) -> None:
    """Killed after step 3, its state is of step 2: step 3 is told again."""
    into = tmp_path / "v1-0"
    told(into, tmp_path, ["tensorboard"], steps=range(4), end=False)
    found = board(tmp_path / "tensorboard" / RUN)
    assert [one.step for one in found.Scalars("loss")] == [1, 2, 3]
    told(into, tmp_path, ["tensorboard"], steps=range(3, 5), kept=2)
    found = board(tmp_path / "tensorboard" / RUN)
    assert [one.step for one in found.Scalars("loss")] == [1, 2, 3, 4]
    assert [one.step for one in found.Images("samples/1")] == [0, 2, 4]


def test_a_mirror_that_breaks_is_noted_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = mirror._TensorBoard.numbers

    def broken(self: Any, step: int, values: Any) -> None:
        if step == 2:
            raise OSError(28, "No space left on device")
        numbers(self, step, values)

    monkeypatch.setattr(mirror._TensorBoard, "numbers", broken)
    events = told(tmp_path / "v1-0", tmp_path, ["tensorboard"], steps=range(5))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == ["v1-0 is not told to tensorboard any more ([Errno 28] No space left on device); training goes on"]
    assert isinstance(events[-1], Done) and sum(isinstance(event, Step) for event in events) == 4


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    events = told(tmp_path / "v1-0", tmp_path, ["tensorboard"], steps=range(5))
    assert sum(isinstance(event, Note) for event in events) == 1 and isinstance(events[-1], Done)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    check(["tensorboard", "wandb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'log = \["wandb"\] needs wandb: pip install "vez\[wandb\]"'):
        check(["wandb"])


def test_without_mirrors_nothing_is_imported_or_written(tmp_path: Path) -> None:
    told(tmp_path / "v1-0", tmp_path, [], steps=range(5))
    assert {path.name for path in tmp_path.iterdir()} == {"v1-0", ".v1-0.lock"}


OFFLINE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_mirror import told
into = Path(sys.argv[2])
told(into / "v1-0", into, ["wandb"], steps=range(4), end=False)
notes = told(into / "v1-0", into, ["wandb"], steps=range(3, 5), kept=2)
print([event.text for event in notes if type(event).__name__ == "Note"])
"""


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, which a .wandb file is after its own header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def test_wandb_offline_has_it_all(tmp_path: Path) -> None:
    """Really run, without a network: a run that was cut and went on is one offline run with every step once."""
    from wandb.proto import wandb_internal_pb2

    keep = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment = keep | {"WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE, str(Path(__file__).parent), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0 and ended.stdout.strip().endswith("[]"), ended.stdout + ended.stderr
    (file,) = tmp_path.glob("wandb/wandb/offline-run-*/*.wandb")
    rows: list[dict[str, Any]] = []
    name = ""
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            name = f"{record.run.project}/{record.run.display_name}"
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert name == f"vez-{tmp_path.name}/v1-0"
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["loss"] for row in rows[1:]] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert [row["_step"] for row in rows if "held_out/loss" in row] == [0, 2, 4]
    assert rows[4]["saved/norm"] == 0.5 and rows[2]["samples/1/caption"] == "a photo of zolka"
    assert len(list(file.parent.rglob("*.png"))) == 3
