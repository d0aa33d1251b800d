"""What people said, the controls, the probes' curves; all in a real browser: axe, keyboard, both themes, print."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_on_disk import build
from witnesses_on_disk import probe, vote

from vez.report import losses, onward, witnesses
from vez.report.build import report, verdict_of
from vez.report.evidence import Evidence, gather

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SEARCH = {"rank": (32, 64), "batch": (1, 8)}
SECTIONS = ("verdict", "choice", "grid", "trigger", "scores", "sheets", "witnesses", "training", "data", "made")
OPEN = "for (const one of document.querySelectorAll('details')) one.open = true"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = build(tmp_path_factory.mktemp("whole"), size=48, pictures=9, steps=40, sweep=True)
    vote(study)
    probe(study)
    return study


@pytest.fixture(scope="module")
def evidence(whole: Path) -> Evidence:
    return gather(whole)


@pytest.fixture(scope="module")
def written(whole: Path) -> Path:
    return report(whole, whole / "report.html", vary=SEARCH)


def test_people_are_heard_in_a_sentence_first(evidence: Evidence, written: Path) -> None:
    concept, text = witnesses.judged(evidence.people)
    assert concept.title.startswith("Which one shows the concept") and "3 judges" in concept.counted
    assert concept.rows[0][0].startswith("v2") and len(concept.preferences) + concept.open == 36
    assert concept.trusted.startswith("Without the judges that are doubted below")
    assert any("a habit: chose the left side" in flag for flag in witnesses.flags(evidence.people))
    assert {row[0] for row in concept.metrics} >= {"The describing words (T1)"}
    page = written.read_text(encoding="utf-8")
    assert concept.headline in page and text.headline in page and "does not mean that they are equal" in page
    assert "Nobody was asked yet" not in page and "Ask people" not in page


def test_probes_have_curves_and_each_says_what_it_shows(evidence: Evidence) -> None:
    found = losses.probed(evidence.probes)
    assert found is not None and len(found.figures) == 4
    learned = found.figures[0]
    assert "Below the dashed line" in learned.says and "v2-0 at step 40 (−0.200)" in learned.says
    assert learned.chart.count('<g class="curve') == 2, "v4 has one checkpoint, and no curve"
    assert all(figure.says.endswith((".", ". At strength 1.")) for figure in found.figures)
    assert losses.probed(None) is None


def test_a_control_is_one_line_and_what_is_off_is_named() -> None:
    found = {
        "strength_0": {"levels": {"a": 0, "b": 1}, "ok": True},
        "halves": {"a": {"T2": {"diff": 0.1, "low": 0.0, "high": 0.2, "p": 0.01, "p_holm": 0.03, "ok": False},
                         "T1": {"diff": 0.0, "p": 0.9, "ok": True}}},
        "held_out": None,
    }  # fmt: skip
    zero, halves, held_out = witnesses.controls(found)
    assert (zero.ok, zero.says) == (True, "apart by at most 1 of 255 levels")
    assert halves.ok is False and halves.says == "off 1 of 2 times: a, the rest of the prompt (T2)"
    assert halves.checks[0].found.replace("\u00a0", " ") == "+0.100 (0.000 to +0.200), p = 0.030"
    assert (held_out.ok, held_out.says) == (None, "not made")


def test_what_was_searched_is_said(evidence: Evidence, written: Path) -> None:
    said = " ".join(onward.searched(evidence, verdict_of(evidence), SEARCH))
    assert "rank: 32, 64 · batch: 1, 8. 3 of the 4 combinations, spread evenly over the grid, were trained." in said
    assert "The best of 8 looks better than it is" in said and "not confirmed yet" in said
    assert "What was searched" in written.read_text(encoding="utf-8")
    assert onward.searched(evidence, verdict_of(evidence), {}) == ()
    assert "All 2 combinations were trained" in onward.searched(evidence, verdict_of(evidence), {"rank": (32, 64)})[0]


def test_what_to_do_next_stands_before_the_reasons(written: Path) -> None:
    page = written.read_text(encoding="utf-8")
    next_at = page.index("What to do next")
    assert page.index("Use v2") < page.index("one in ten is worse") < next_at < page.index("How sure")
    assert "vez sample thesis --profile confirm --arms v2" in page[next_at : page.index("How sure")]
    assert page.count("--profile confirm") == 1, "the verdict's own sentence about it would say it twice"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


in_a_browser = [pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]


class TestInABrowser:
    pytestmark = in_a_browser

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [390, 1280])
    def test_axe_finds_nothing_with_everything_open(self, browser: Any, written: Path, scheme: str, width: int) -> None:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
        page = browser.new_page(color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 900})
        page.goto(written.as_uri())
        page.evaluate(OPEN)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = axe.Axe().run(page, options={"runOnly": rules})
        assert found.violations_count == 0, found.generate_report()
        page.close()

    def test_the_keyboard_stops_once_a_row_and_comes_to_every_picture(self, browser: Any, written: Path) -> None:
        page = browser.new_context(java_script_enabled=True).new_page()
        page.goto(written.as_uri())
        stops = (
            "[...document.querySelectorAll('#grid a.zoom')].filter(a => a.checkVisibility() && a.tabIndex >= 0).length"
        )
        rows = page.locator("#seed-0-end").locator("xpath=preceding-sibling::div[1]").locator("tbody tr").count()
        assert page.evaluate(stops) == rows > 0
        skip = page.locator("#grid a.skip").first
        skip.focus()
        assert skip.bounding_box()["x"] >= 0, "seen once it has the focus"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('.scroll.tall') === null"), "past all pictures"
        page.locator("#grid a.zoom").first.focus()
        page.keyboard.press("Enter")
        first = page.evaluate("location.hash")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Next"
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == f"#z{int(first[2:]) + 1}"
        assert page.locator(".zoom:target img").bounding_box()["width"] > 400
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Close"
        page.keyboard.press("Enter")
        assert page.locator(".zoom:target").count() == 0
        page.close()

    def test_printed_it_has_every_section_on_paper(self, browser: Any, written: Path, tmp_path: Path) -> None:
        page = browser.new_page()
        page.goto(written.as_uri())
        page.emulate_media(media="print")
        assert page.locator(".skip, .shut, .turn").filter(visible=True).count() == 0
        for section in (
            "verdict",
            "choice",
            "grid",
            "trigger",
            "scores",
            "sheets",
            "witnesses",
            "training",
            "data",
            "made",
        ):
            assert page.locator(f"#{section} h2").is_visible(), section
        # nothing runs over the edge of A4 less its margins
        page.set_viewport_size({"width": 688, "height": 1000})
        wide = "[...document.querySelectorAll('img, svg.chart, table')].filter(e => e.checkVisibility() && "
        wide += "e.getBoundingClientRect().right > 700).map(e => e.className || e.alt || e.outerHTML.slice(0, 80))"
        assert page.evaluate(wide) == []
        small = "[...document.querySelectorAll('img')].filter(e => e.checkVisibility() && "
        small += "e.getBoundingClientRect().width < 40).map(e => e.alt)"
        assert page.evaluate(small) == []
        file = page.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True)
        assert 5 < len(re.findall(rb"/Type\s*/Page\b", file)) < 30
        page.close()
