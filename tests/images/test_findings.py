"""Findings as a person reads them, and what settles them."""

import os
import subprocess
from dataclasses import replace

import pytest

from vez.config import Waiver
from vez.images.findings import Finding, as_text, open_errors, settle, waive

SMALL = Finding("a.png", "tiny", 40, 512, "it would be enlarged", "find a larger copy", level="error")
COPY = Finding("b.png", "near-duplicate", 0.01, 0.12, "it repeats a.png", "keep the better one", other="a.png")


def test_a_waiver_is_for_one_picture_or_for_all() -> None:
    found = [SMALL, replace(SMALL, file="c.png"), COPY]
    one = waive(found, [Waiver(check="tiny", file="a.png", reason="rare")])
    assert [f.waived for f in one] == ["rare", "", ""] and open_errors(one) == 1
    every = waive(found, [Waiver(check="tiny", reason="all are")])
    assert [f.waived for f in every] == ["all are", "all are", ""] and open_errors(every) == 0
    assert [replace(f, waived="") for f in every] == found, "they stay as they are"


def test_what_is_left_out_settles_the_findings_about_it_and_about_its_copies() -> None:
    settled = settle([SMALL, COPY, replace(COPY, file="d.png", other="c.png")], {"a.png"})
    assert [f.left_out for f in settled] == [True, True, False] and open_errors(settled) == 0
    text = as_text(settled, "v1")
    assert text.splitlines()[-1] == "1 warning, 2 about what is left out"
    assert text.startswith("warning  d.png: near-duplicate (0.01; threshold 0.12)")


def test_each_open_finding_has_its_fix_and_the_lines_to_type() -> None:
    text = as_text([SMALL], "v1")
    assert "fix:   find a larger copy" in text
    assert "vez exclude v1 a.png --because …" in text and "vez waive v1 tiny a.png --because …" in text
    whole = as_text([replace(SMALL, file="*", check="few-sources")], "v1")
    assert "the whole set" in whole and "vez waive v1 few-sources '*' --because …" in whole and "exclude" not in whole
    waived = as_text(waive([SMALL], [Waiver(check="tiny", reason="rare")]), "v1")
    assert "accepted: rare" in waived and "vez waive" not in waived and waived.endswith("nothing to do, 1 waived")


@pytest.mark.parametrize(
    "file", ["a b.png", "it's.png", "$(x);`y`.png", "\x1b[2Jq.png", "\u202egnp.exe", "caf\udce9.png"]
)
def test_the_line_to_type_names_the_very_file_and_shows_nothing_raw(file: str) -> None:
    text = as_text([replace(SMALL, file=file)], "v1")
    assert not any(not c.isprintable() for c in text.replace("\n", ""))
    line = next(line for line in text.splitlines() if "vez exclude" in line)
    quoted = line.partition("exclude v1 ")[2].removesuffix(" --because …")
    said = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True).stdout
    assert said == os.fsencode(file)


def test_a_name_that_looks_like_an_option_is_none() -> None:
    assert "vez waive v1 tiny --because … -- -x.png" in as_text([replace(SMALL, file="-x.png")], "v1")
