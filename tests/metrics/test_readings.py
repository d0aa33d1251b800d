import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vez.errors import StoreError
from vez.metrics.looks import Look
from vez.metrics.readings import FILE, Ledger, Reading, load, look_of, mend, read_of, take

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def what(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "study" / FILE, planned=2)


def test_more_pictures_are_another_look_and_the_same_are_not(ledger: Ledger) -> None:
    assert take(ledger, "choice", {A: what(1)}) == Look(1, 2)
    before = ledger.path.read_bytes()
    assert take(ledger, "choice", {A: what(1)}) == Look(1, 2) and ledger.path.read_bytes() == before
    assert take(ledger, "choice", {A: what(2)}) == Look(2, 2)
    assert take(ledger, "choice", {A: what(1)}) == Look(1, 2)  # back to the first pictures: they were read first
    assert take(ledger, "choice", {A: what(3)}) == Look(3, 2)
    assert ledger.path.read_bytes().startswith(before)  # lines are added, none is changed
    assert len(load(ledger.path)[0]) == 3


def test_other_weights_begin_anew_and_company_does_not(ledger: Ledger) -> None:
    take(ledger, "choice", {A: what(1), B: what(1)})
    assert take(ledger, "choice", {C: what(9)}) == Look(1, 2)
    # a LoRA that is added, or taken out, buys the others no look
    assert take(ledger, "choice", {A: what(2), C: what(9)}) == Look(1, 2)  # the least error is left for C
    assert take(ledger, "choice", {A: what(3)}) == Look(3, 2)
    assert take(ledger, "choice", {A: what(1), B: what(1)}) == Look(1, 2)


def test_the_confirmation_is_counted_for_itself(ledger: Ledger) -> None:
    take(ledger, "choice", {A: what(1)})
    once = Ledger(ledger.path)
    assert take(once, "confirmation", {A: what(5)}) == Look(1, 1)
    assert take(once, "confirmation", {A: what(6)}) == Look(2, 1)
    assert take(ledger, "choice", {A: what(2)}) == Look(2, 2)


def test_the_plan_of_the_first_look_holds(ledger: Ledger) -> None:
    one = Ledger(ledger.path, planned=1)
    assert take(one, "choice", {A: what(1)}) == Look(1, 1)
    assert take(Ledger(ledger.path, planned=5), "choice", {A: what(1)}) == Look(1, 1)
    assert take(Ledger(ledger.path, planned=5), "choice", {A: what(2)}) == Look(2, 1)
    assert take(Ledger(ledger.path, planned=5), "choice", {B: what(1)}) == Look(1, 5)  # new weights: the plan of today


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 4).map(what), min_size=1), min_size=1))
def test_whatever_is_read_in_whatever_company_no_lora_has_more_error_than_there_is(
    tmp_path_factory: pytest.TempPathFactory, reads: list[dict[str, str]]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("study") / FILE, planned=3)
    used: dict[str, dict[str, float]] = {}
    for read in reads:
        look = take(ledger, "choice", read)
        for lora, pictures in read.items():
            of = used.setdefault(lora, {})
            of[pictures] = max(of.get(pictures, 0.0), look.alpha)
    assert all(sum(of.values()) <= 0.05 + 1e-12 for of in used.values())


def test_a_kill_loses_no_look(ledger: Ledger) -> None:
    take(ledger, "choice", {A: what(1)})
    whole = ledger.path.read_bytes()
    take(ledger, "choice", {A: what(2)})
    line = ledger.path.read_bytes()[len(whole) :]
    for cut in range(len(line)):  # killed while the second line was written: its numbers were never told
        ledger.path.write_bytes(whole + line[:cut])
        assert take(ledger, "choice", {A: what(2)}) == Look(2, 2)
        assert ledger.path.read_bytes() == whole + line


HOSTILE = [
    b"not json\n",
    b"[]\n",
    b'{"role":"choice","planned":1,"read":{}}\n',
    b'{"role":"choice","planned":9,"read":{"%s":"%s"}}\n' % (A.encode(), A.encode()),
    b'{"role":"choice","planned":"1","read":{"%s":"%s"}}\n' % (A.encode(), A.encode()),
    b'{"role":"choice","planned":1,"read":{"../x":"%s"}}\n' % A.encode(),
    b'{"role":"other","planned":1,"read":{"%s":"%s"}}\n' % (A.encode(), A.encode()),
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"\n",
]


@pytest.mark.parametrize("line", HOSTILE)
def test_a_damaged_ledger_is_said_and_never_begun_anew(ledger: Ledger, line: bytes) -> None:
    take(ledger, "choice", {A: what(1)})
    data = ledger.path.read_bytes() + line
    ledger.path.write_bytes(data)
    for read in ({A: what(1)}, {A: what(2)}):
        with pytest.raises(StoreError, match=r"looks\.jsonl, line 2, is not a look that vez wrote; put the file back"):
            take(ledger, "choice", read)
    assert ledger.path.read_bytes() == data


def test_a_ledger_that_is_gone_is_written_again_from_its_copy(ledger: Ledger, tmp_path: Path) -> None:
    copy = tmp_path / "scores" / FILE
    assert not mend(ledger, copy)  # neither is there: nothing was read yet
    take(ledger, "choice", {A: what(1)})
    take(ledger, "choice", {A: what(2)})
    copy.parent.mkdir()
    whole = ledger.path.read_bytes()
    copy.write_bytes(whole)
    assert not mend(ledger, copy) and ledger.path.read_bytes() == whole
    for lost in (None, b"", whole[:20]):
        ledger.path.unlink() if lost is None else ledger.path.write_bytes(lost)
        assert mend(ledger, copy) and ledger.path.read_bytes() == whole
    assert take(ledger, "choice", {A: what(3)}) == Look(3, 2)
    assert not mend(ledger, copy)  # it knows more than the copy
    lines = whole.splitlines(keepends=True)
    for tampered in (lines[1], lines[1] + lines[0], lines[0].replace(b'"planned":2', b'"planned":5') + lines[1]):
        ledger.path.write_bytes(tampered)
        with pytest.raises(StoreError, match="lacks looks that the last scores know of; put it back"):
            mend(ledger, copy)
    copy.write_bytes(b"rubbish\n")
    with pytest.raises(StoreError, match="line 1, is not a look"):
        mend(ledger, copy)


def test_a_ledger_that_cannot_be_written_says_so(ledger: Ledger) -> None:
    ledger.path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot read .*looks\.jsonl"):
        take(ledger, "choice", {A: what(1)})


def test_what_is_read_is_the_pictures_bytes_and_who_looks(tmp_path: Path) -> None:
    files = {}
    for number, cell in enumerate([("v1", "p0", 0), ("v1", "p0", 1), ("v1", "p1", 0), ("base", "p0", 0)]):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
        files[cell] = path
    table = {"v1": {("p0", 0): 1.0, ("p0", 1): 2.0}, "base": {("p0", 0): 0.0}}
    loras = {"v1": {"lora": A}}
    one = read_of([table], loras, files, ["clip"])
    assert set(one) == {A}
    assert read_of([table, table], loras, files, ["clip"]) == one  # two metrics of the same pictures
    other_values = {"v1": {("p0", 0): 7.0, ("p0", 1): 7.0}}
    assert read_of([other_values], loras, files, ["clip"]) == one  # not what came out of it
    assert read_of([table], {"v1": A}, files, ["clip"]) == one  # an older manifest
    assert read_of([table], {"v1": {"lora": B}}, files, ["clip"]) == {B: one[A]}
    fewer = {"v1": {("p0", 0): 1.0, ("p0", 1): float("nan")}}
    more = {"v1": table["v1"] | {("p1", 0): 1.0}}
    found = [
        *(read_of([values], loras, files, ["clip"])[A] for values in (table, fewer, more)),
        read_of([table], loras, files, ["clip", "dino"])[A],
        read_of([table], loras, files | {("v1", "p0", 1): tmp_path / "3.png"}, ["clip"])[A],
    ]
    assert len(set(found)) == 5
    assert read_of([{"v1": {}}], loras, files, ["clip"]) == {} == read_of([], loras, files, ["clip"])
    (odd,) = read_of([table], {"v1": {"lora": "../../etc"}}, files, ["clip"])
    assert len(odd) == 64  # a hostile manifest's word is counted as a LoRA like any other


def test_the_look_with_the_least_error_is_that_of_all() -> None:
    def reading(planned: int, read: dict[str, str]) -> Reading:
        return Reading(role="choice", planned=planned, read=read)

    before = [reading(1, {A: what(1)}), reading(3, {B: what(1)})]
    assert look_of(before, reading(3, {A: what(1), B: what(1)})) == Look(1, 3)
    assert look_of(before, reading(3, {A: what(2), B: what(1)})) == Look(2, 1)
    assert json.loads(before[0].model_dump_json()) == {"role": "choice", "planned": 1, "read": {A: what(1)}}
