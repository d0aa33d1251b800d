"""Events as a person sees them, on a terminal and in a log file."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from vez.events import Done, Event, Note, Sampled, Saved, Stage, Step, Validated
from vez.progress import LINES_PER_RUN, show

END = Done(Path("studies/a/report.html"), "f" * 64)


def stage(steps: int) -> Iterator[Event]:
    yield Stage("train", steps, "v1, v2")
    for step in range(1, steps + 1):
        for run in ("v1-0", "v2-0"):
            yield Step(run, step, steps, 1 / step, 1e-4, 5e-5, 0.5, 0.25)
    yield Validated("v1-0", steps, 0.125, (0.1, 0.15))
    yield Saved("v1-0", steps, Path("lora.safetensors"))
    yield Stage("sample", 100)
    for i in range(100):
        yield Sampled("v1-0", "p1", i, Path(f"samples/v1-0/p1-{i}.png"))
    yield Note("the [end] is near")  # brackets are rich's markup elsewhere; here they are text
    yield END


@pytest.mark.parametrize("terminal", [False, True])
def test_every_event_is_iterated_and_the_last_done_returned(terminal: bool) -> None:
    file = io.StringIO()
    assert show(stage(400), console=Console(file=file, force_terminal=terminal, width=120)) == END
    assert "the [end] is near" in file.getvalue()
    assert "fixed-noise loss of held-out pictures 0.1250" in file.getvalue()


def test_a_log_file_gets_some_lines_per_run_and_no_control_characters() -> None:
    file = io.StringIO()
    show(stage(400), console=Console(file=file, width=40))
    text = file.getvalue()
    assert "\x1b" not in text and "\r" not in text
    lines = [line for line in text.splitlines() if "v1-0 step" in line and "s/step" in line]
    assert LINES_PER_RUN <= len(lines) <= LINES_PER_RUN + 2
    assert lines[-1] == "  v1-0 step 400/400 loss 0.0025 · 0.25 s/step · 0 s left"
    assert sum("images, last" in line for line in text.splitlines()) == 2


def test_a_stage_without_an_end() -> None:
    assert show(iter([Note("nothing to do")]), console=Console(file=io.StringIO())) is None
