"""Truth test, level A: the statistics engine on simulated studies whose right answer is known (bench/truth_a.py)."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("truth_a", ROOT / "bench" / "truth_a.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["truth_a"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


TRUTH = load()


def on_the_page() -> dict[str, float]:
    text = (ROOT / "docs" / "truth.md").read_text(encoding="utf-8")
    section = text[text.index(TRUTH.BEGIN) : text.index(TRUTH.END)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {row[0]: float(row[1]) for row in cells if row[3] == "yes"}


@pytest.mark.parametrize("title", TRUTH.GROUPS)
def test_what_is_asked_is_found_and_stands_on_the_page(title: str) -> None:
    rows = list(TRUTH.GROUPS[title]())
    wrong = [TRUTH.line(row) for row in rows if not row.right]
    assert not wrong, wrong
    page = on_the_page()
    # the same seeds give the same numbers; another numpy's last bits may turn a run or two
    differ = {row.what: page.get(row.what) for row in rows if abs(page.get(row.what, 1e9) - row.found) > 0.01}
    assert not differ, f"make the page again: python bench/truth_a.py --write docs/truth.md ({differ})"


def test_the_page_holds_nothing_else_and_a_wrong_row_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"a group": [TRUTH.Row("one", 0.5, 0.4, 0.6), TRUTH.Row("two", 0.7, 0.4, 0.6)]}
    text = TRUTH.page(rows)
    assert "| one | 0.500 | 0.400 to 0.600 | yes |" in text and "| two | 0.700 | 0.400 to 0.600 | **no** |" in text
    page = tmp_path / "truth.md"
    page.write_text(f"before\n{TRUTH.BEGIN}\nold\n{TRUTH.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(TRUTH, "GROUPS", {"a group": lambda: iter(rows["a group"])})
    monkeypatch.setattr(sys, "argv", ["truth_a.py", "--write", str(page)])
    TRUTH.main()
    assert page.read_text(encoding="utf-8") == f"before\n{text}\nafter\n"
