"""What a step of training or drawing costs may not grow unseen; the accepted numbers lie in golden/."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from vez.bench.counts import counted
from vez.bench.gate import ACCEPT, Cost, grown, main, rows, training
from vez.bench.work import Workload

GOLDEN = Path(__file__).parent / "golden" / "cost.json"
ACCEPTED = json.loads(GOLDEN.read_text(encoding="utf-8"))
SMALL = Workload("tiny", 64, 2, (8,), "fp32", "cpu", 1)
same_torch = pytest.mark.skipif(
    torch.__version__.partition("+")[0] != ACCEPTED["torch"],
    reason=f"counted with torch {ACCEPTED['torch']}, whose operators another torch need not have",
)


@same_torch
@pytest.mark.parametrize(("name", "count"), rows().items(), ids=list(rows()))
def test_a_step_costs_no_more_than_it_did(name: str, count: Callable[[], Cost]) -> None:
    said = grown(ACCEPTED["cost"], {name: count()})
    assert not said, f"{'; '.join(said)}. If that is wanted: {ACCEPT}"


def test_all_that_is_accepted_is_still_counted() -> None:
    assert ACCEPTED["cost"].keys() == rows().keys(), ACCEPT


def test_counts_are_the_same_again_and_with_other_threads() -> None:
    one, threads = training(SMALL), torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert training(SMALL) == one
    finally:
        torch.set_num_threads(threads)


def test_growth_is_told_by_name_and_share() -> None:
    accepted = {"a step": asdict(Cost(100, 2.0, 50.0))}
    same = Cost(100, 2.0, 50.0)
    assert grown(accepted, {"a step": same}) == []
    assert grown(accepted, {"a step": replace(same, operators=90, megabytes=50.4)}) == [], "less, and a hair more bytes"
    assert grown(accepted, {"a step": replace(same, operators=101)}) == [
        "a step: operators grew from 100 to 101 (+1.00 %)"
    ]
    assert grown(accepted, {"a step": replace(same, megabytes=51.0)}) == [
        "a step: megabytes grew from 50 to 51 (+2.00 %)"
    ]
    assert grown(accepted, {"a step": replace(same, gflop=2.1)}) == ["a step: gflop grew from 2 to 2.1 (+5.00 %)"]
    assert grown(accepted, {"another": same}) == ["another: not in the accepted numbers yet"]


def test_bytes_are_those_of_new_tensors() -> None:
    a = torch.ones(4, 6)
    assert counted(lambda: a + 1).bytes == 4 * 24
    assert counted(lambda: a.t()[1:].view(5, 4, 1)).bytes == 0
    assert counted(lambda: a.add_(1)).bytes == 0
    assert counted(lambda: a.chunk(2)[1] * 2).bytes == 4 * 12
    view = counted(lambda: torch.ops.aten._unsafe_view(a, [24]))
    assert (view.operators, view.bytes) == (0, 0), "it does not say so, but gives the same memory"


def test_what_comes_whole_in_inference_mode_is_taken_apart() -> None:
    x, weight, bias = torch.ones(3, 5), torch.ones(7, 5), torch.ones(7)

    def work() -> None:
        torch.nn.functional.linear(x, weight, bias)

    plain = counted(work)
    with torch.inference_mode():
        assert (counted(work).flops, counted(work).operators) == (plain.flops, plain.operators)
    assert plain.flops == 2 * 3 * 5 * 7


def test_numbers_are_accepted_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vez.bench.gate.rows", lambda: {"a step": lambda: Cost(7, 1.0, 2.0)})
    file = tmp_path / "cost.json"
    assert main(["--write", str(file)]) == 0
    assert main(["--check", str(file)]) == 0
    monkeypatch.setattr("vez.bench.gate.rows", lambda: {"a step": lambda: Cost(8, 1.0, 2.0)})
    assert main(["--check", str(file)]) == 1
    assert "operators grew from 7 to 8" in capsys.readouterr().out
