"""The page in a real browser: judging by keyboard and mouse, and what a curious judge could find out."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judged_study import ARMS, build, draw
from served import served

from vez.judging import material
from vez.judging.server import Server
from vez.judging.votes import FOLDER, read

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
SHOWN = "#pair:not(.waiting) #right img[src]"
LOOK = 550  # ms: a press before half a second is a slip and does nothing
PHONE, LAPTOP = {"width": 375, "height": 740}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return build(tmp_path, size=48)


@pytest.fixture
def real(tmp_path: Path) -> tuple[Path, ...]:
    paths = tuple(tmp_path / f"real-{i}.png" for i in range(4))
    for i, path in enumerate(paths):
        draw("v2", i, i, 96).save(path)
    return paths


@pytest.fixture
def server(study: Path, real: tuple[Path, ...]) -> Iterator[Server]:
    with served(study, real=real) as server:
        yield server


def opened(browser: Any, server: Server, **options: Any) -> Any:
    """The page with its pair shown; its errors and those of the console are in ``page.errors``."""
    page = browser.new_page(viewport=options.pop("viewport", LAPTOP), **options)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(server.url)
    page.wait_for_selector(SHOWN)
    return page


def after(page: Any, act: Any, count: str) -> None:
    """Look long enough, act, and wait for the count and the next pair."""
    page.wait_for_timeout(LOOK)
    act()
    page.wait_for_function("text => document.getElementById('count').textContent.startsWith(text)", arg=count)
    page.wait_for_function("() => !document.querySelector('#pair.waiting')")


def answers(study: Path) -> list[str]:
    return [vote.answer for vote in read(study / FOLDER)]


def test_votes_by_keyboard_mouse_and_touch_undo_and_reload(browser: Any, server: Server, study: Path) -> None:
    page = opened(browser, server, has_touch=True)
    assert page.text_content("#count").startswith("0 of 20") and page.is_disabled("#undo")
    after(page, lambda: page.keyboard.press("ArrowLeft"), "1 of 20")
    after(page, lambda: page.keyboard.press("ArrowRight"), "2 of 20")
    after(page, lambda: page.keyboard.press("ArrowDown"), "3 of 20")
    after(page, lambda: page.keyboard.press("ArrowUp"), "4 of 20")
    after(page, lambda: page.click("#right img"), "5 of 20")
    after(page, lambda: page.click("[data-answer=tie]"), "6 of 20")
    after(page, lambda: page.tap("#left"), "7 of 20")
    page.focus("[data-answer=neither]")
    after(page, lambda: page.keyboard.press("Enter"), "8 of 20")
    assert answers(study) == ["left", "right", "tie", "neither", "right", "tie", "left", "neither"]

    prompt = page.text_content("#prompt")
    after(page, lambda: page.keyboard.press("Backspace"), "7 of 20")
    after(page, lambda: page.click("#undo"), "6 of 20")
    after(page, lambda: page.keyboard.press("ArrowRight"), "7 of 20")
    after(page, lambda: page.keyboard.press("ArrowRight"), "8 of 20")
    assert answers(study) == ["left", "right", "tie", "neither", "right", "tie", "right", "right"]
    assert page.text_content("#prompt") == prompt

    page.reload()
    page.wait_for_selector(SHOWN)
    assert page.text_content("#count").startswith("8 of 20") and page.text_content("#prompt") == prompt
    assert page.get_attribute("#progress", "aria-valuenow") == "8"
    assert page.errors == []
    page.close()


def test_slips_and_other_keys_do_not_vote(browser: Any, server: Server, study: Path) -> None:
    page = opened(browser, server)
    for _ in range(3):
        page.keyboard.press("ArrowLeft")  # sooner than anyone can look
    page.wait_for_timeout(LOOK)
    for key in (
        "a",
        "b",
        "Space",
        "1",
        "Control+ArrowLeft",
        "Alt+ArrowRight",
        "Shift+ArrowLeft",
        "Escape",
        "Backspace",
    ):
        page.keyboard.press(key)
    page.wait_for_timeout(100)
    assert answers(study) == []
    page.dispatch_event("body", "keydown", {"key": "ArrowLeft", "repeat": True, "bubbles": True})  # a key held down
    page.wait_for_timeout(100)
    assert answers(study) == []
    page.evaluate("for (let i = 0; i < 5; i++) document.getElementById('left').click()")  # a double click
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of')")
    assert answers(study) == ["left"]
    page.close()


def test_neither_picture_is_seen_before_both_are_there(browser: Any, server: Server) -> None:
    page = browser.new_page(viewport=LAPTOP)
    held: list[Any] = []
    page.route("**/picture/*", lambda route: held.append(route) if not held else route.continue_())
    page.goto(server.url)
    page.wait_for_timeout(400)
    assert len(held) == 1  # one picture is late; the other has arrived
    assert page.evaluate("() => document.querySelector('#pair').classList.contains('waiting')")
    assert [page.is_visible(f"#{side} img") for side in ("left", "right")] == [False, False]
    page.keyboard.press("ArrowLeft")
    held[0].continue_()
    page.wait_for_selector(SHOWN)
    assert [page.is_visible(f"#{side} img") for side in ("left", "right")] == [True, True]
    assert page.text_content("#count").startswith("0 of")
    page.close()


def test_a_curious_judge_finds_no_arm(browser: Any, server: Server, study: Path) -> None:
    """DOM, addresses, headers, sizes and storage of a sitting, as developer tools show them."""
    page = browser.new_page(viewport=LAPTOP)
    seen: list[tuple[str, dict[str, str], bytes]] = []
    page.on("response", lambda answer: seen.append((answer.url, answer.all_headers(), answer.body())))
    page.goto(server.url)
    page.wait_for_selector(SHOWN)
    dom = []
    for count in range(1, 5):
        dom.append(page.content())
        after(page, lambda: page.keyboard.press("ArrowLeft"), f"{count} of 20")
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.close()

    texts = dom + [url + json.dumps(headers) for url, headers, _ in seen]
    texts += [body.decode() for url, _, body in seen if "/picture/" not in url]
    sums = [sha256[:12] for sha256 in material.read(study).sha256.values()]
    for text in texts:
        assert not [arm for arm in ARMS if f'"{arm}"' in text or f"{arm}/" in text or f">{arm}<" in text]
        assert "nosnja" not in text and "lora" not in text.lower() and not [part for part in sums if part in text]
    pictures = [(headers, body) for url, headers, body in seen if "/picture/" in url]
    real = 4  # small and asked for once; they say nothing of the arms
    large = [len(body) for _, body in pictures if len(body) > 100_000]
    assert len(large) == len(pictures) - real == 2 * 5 and len(set(large)) == 1
    assert all(b"tEXt" not in body and b"lora" not in body for _, body in pictures)
    assert len({tuple(sorted(headers.keys())) for headers, _ in pictures}) == 1


def test_the_policy_stops_scripts_and_other_places(browser: Any, server: Server) -> None:
    page = opened(browser, server)
    page.evaluate("""() => {
      const script = document.createElement('script');
      window.ran = false;
      try { script.textContent = 'window.ran = true'; document.body.append(script); } catch (error) { /* refused */ }
      const image = new Image(); image.src = 'http://127.0.0.1:9/leak.png'; document.body.append(image);
    }""")
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is False
    assert any("Content Security Policy" in said or "TrustedScript" in said for said in page.errors)
    page.close()


def test_hostile_words_stay_words(browser: Any, tmp_path: Path) -> None:
    study = build(tmp_path, scenes=("<img src=x onerror=document.title=1>", "b"), size=16)
    with served(study) as server:
        page = opened(browser, server)
        for count in range(1, 4):
            after(page, lambda: page.keyboard.press("ArrowLeft"), f"{count} of")
        assert page.title() == "Judging · vez"
        assert page.query_selector("#prompt img") is None
        page.close()


def test_the_end_offers_the_second_question_and_can_be_undone(
    browser: Any, study: Path, real: tuple[Path, ...]
) -> None:
    with served(study, votes=1, real=real) as server:
        page = opened(browser, server)
        assert page.is_visible("#references") and page.locator("#real img").count() == 4
        page.wait_for_timeout(LOOK)
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#next:visible")
        assert page.text_content("h1") == "Done" and not page.is_visible("#judging")
        page.click("#undo")
        page.wait_for_selector(SHOWN)
        after(page, lambda: page.keyboard.press("ArrowDown"), "1 of 1")
        page.click("#next")
        page.wait_for_selector("#judging:visible")
        assert page.text_content("h1") == "Which one follows the text better?"
        assert not page.is_visible("#references")
        page.close()


def test_a_server_that_is_gone_is_said(browser: Any, study: Path) -> None:
    with served(study) as server:
        page = opened(browser, server)
    page.wait_for_timeout(LOOK)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#trouble:visible")
    assert "start “vez judge” again" in page.text_content("#trouble")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 568}, LAPTOP, {"width": 1920, "height": 1080}])
def test_it_fits_and_can_be_used_at_every_width(
    browser: Any, server: Server, viewport: dict[str, int], scheme: str, tmp_path: Path
) -> None:
    page = opened(browser, server, viewport=viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if viewport["width"] >= 1280:
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "scrolling to vote"
    left, right = (page.locator(f"#{side} img").bounding_box() for side in ("left", "right"))
    assert left["y"] == right["y"] and left["width"] == right["width"] == left["height"]
    assert left["width"] >= (120 if viewport["width"] < 400 else 300) and left["x"] < right["x"]
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and box["width"] >= 44  # a finger's size
    keep = os.environ.get("VEZ_SCREENSHOTS")
    page.screenshot(path=Path(keep or tmp_path) / f"judge-{viewport['width']}-{scheme}.png")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, server: Server, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = opened(browser, server, color_scheme=scheme, bypass_csp=True)
    found = axe.Axe().run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_the_focus_is_seen_and_what_happens_is_announced(browser: Any, server: Server) -> None:
    page = opened(browser, server)
    order = []
    for _ in range(4):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.answer"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order == ["left", "right", "tie", "neither"]
    after(page, lambda: page.keyboard.press("ArrowDown"), "1 of 20")
    assert page.text_content("#said").startswith("Pair 2 of 20.")
    assert page.get_attribute("#said", "aria-live") == "polite"
    after(page, lambda: page.keyboard.press("Backspace"), "0 of 20")
    assert page.text_content("#said").startswith("The last vote is taken back. Pair 1 of 20.")
    page.close()
