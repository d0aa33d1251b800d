"""Events as a person sees them, on a terminal and in a log file."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from vez.events import Done, Event, Item, Note, Sampled, Saved, Stage, Step, Validated
from vez.progress import LINES_PER_RUN, Clock, show

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


def clocked(events: list[tuple[float, Event]]) -> list[float | None]:
    """The time left after each event, which comes at its second."""
    now = [0.0]
    clock, found = Clock(lambda: now[0]), []
    for at, event in events:
        now[0] = at
        clock.see(event)
        found.append(clock.left)
    return found


def step(n: int, of: int = 10, run: str = "v1-0") -> Step:
    return Step(run, n, of, 0.5, 1e-4, 5e-5, 0.5, 0.25)


def test_the_time_left_is_by_the_clock_and_not_by_a_step_alone() -> None:
    """Between steps 3 and 4 pictures were drawn: that will happen again."""
    at = [(0.0, Stage("train", 10)), (5.0, step(1)), (6.0, step(2)), (6.0, step(2, run="v2-0")), (7.0, step(3)),
          (12.0, Note("pictures")), (14.0, step(4))]  # fmt: skip
    assert clocked(at) == [None, None, 8.0, 8.0, 7.0, 7.0, 18.0]


def test_a_run_that_goes_on_is_not_fast_for_what_it_had() -> None:
    assert clocked([(0.0, Stage("train", 10)), (3.0, step(7)), (5.0, step(8))]) == [None, None, 4.0]


def test_slow_steps_have_a_time_left_too() -> None:
    """A step of minutes, as on a CPU."""
    assert clocked([(0.0, Stage("train", 4)), (100.0, step(1, 4)), (200.0, step(2, 4))])[-1] == 200.0


def test_every_stage_with_a_total_has_one() -> None:
    items: list[tuple[float, Event]] = [
        (0.0, Stage("check", 4)),
        (1.0, Item("check", 1, 4)),
        (3.0, Item("check", 2, 4)),
    ]
    assert clocked(items) == [None, 3.0, 3.0]
    assert clocked([(0.0, Stage("check")), (1.0, Item("check", 1))])[-1] is None
    there, drawn = (Sampled("v1", "p", 0, Path("a.png"), seconds) for seconds in (0.0, 2.0))
    pictures: list[tuple[float, Event]] = [(0.0, Stage("sample", 5)), (0.1, there), (0.1, there), (2.1, drawn)]
    assert clocked(pictures)[-1] == pytest.approx(2 * 2.1), "two that were there are no measure"


def test_a_terminal_shows_it() -> None:
    file = io.StringIO()
    show(iter([Stage("train", 3), *(step(n, 3) for n in (1, 2, 3))]), console=Console(file=file, force_terminal=True))
    assert "s left" in file.getvalue()
