"""The page of a study that swept checkpoints and strengths, and what is written beside it; the page in a browser."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_on_disk import HOSTILE, SWEPT, TRIGGER, build

from vez.errors import StoreError
from vez.report import card, machine
from vez.report.build import report, verdict_of
from vez.report.evidence import Evidence, gather

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("swept"), size=48, pictures=9, steps=40, sweep=True)


@pytest.fixture(scope="module")
def evidence(swept: Path) -> Evidence:
    return gather(swept)


@pytest.fixture(scope="module")
def written(swept: Path) -> Path:
    return report(swept, swept / "report.html")


def test_checkpoint_and_strength_are_part_of_the_verdict(evidence: Evidence, written: Path) -> None:
    verdict, text = verdict_of(evidence), written.read_text(encoding="utf-8")
    assert verdict.headline == "Use v2, step 20, strength 1."
    assert "runs/v2-0/lora-000020.safetensors" in text
    assert "by checkpoint at strength 1" in text and "by strength" in text
    assert "There are 4 more arms than fit side by side" in text and "The other arms at seed 0" in text
    assert "and the chosen one at step 20 too" in text and ">v2-0 at 20<" in text
    assert "Every two compared" in text and "Concept against prompt" in text
    refused = {of.arm for of in verdict.refused}
    assert refused | {verdict.use, *verdict.tied} == set(SWEPT) | {"v1", "v2", "v4"}


def test_sheets_show_what_a_rule_chose_and_controls_that_are_off_are_marked(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "one in ten is worse" in text and "trained on: web/00.jpg" in text and "from the same noise" in text
    assert '<span class="tag bad">off</span>' in text and "An arm’s even noises against its odd ones" in text
    assert "Nobody was asked yet" in text
    assert "As the reference study reports it" in text and "CLIP never saw the trigger word" in text


def test_json_has_stable_keys_and_the_same_bytes(swept: Path, evidence: Evidence) -> None:
    text = machine.as_json(evidence)
    assert text == machine.as_json(gather(swept))
    found = json.loads(text)
    assert list(found) == [
        *("version", "study", "samples", "scores", "verdict", "arms", "metrics", "not_measured", "tables", "looks"),
        *("gates", "settings", "selection", "confirmation", "controls", "trained_controls"),
    ]
    assert found["verdict"]["use"] == "v2@20" and found["verdict"]["sentence"].startswith("Use v2, step 20")
    assert found["arms"]["v2@20"] == {
        "variant": "v2", "run": "v2-0", "training_seed": 0, "steps": 20, "strength": 1.0,
        "file": "runs/v2-0/lora-000020.safetensors",
    }  # fmt: skip
    assert found["confirmation"] is None and "similarity" in found["not_measured"]
    assert str(swept) not in text


def test_csv_holds_every_number_and_no_formula(evidence: Evidence, tmp_path: Path) -> None:
    assert evidence.scores is not None
    pictures, arms = machine.write_csv(evidence, tmp_path)
    rows = list(csv.DictReader(io.StringIO(pictures.read_text(encoding="utf-8"))))
    assert len(rows) == len(evidence.scores.rows)
    assert {row["text"] for row in rows} >= {f"a woman in {TRIGGER} folk costume dancing in a wheat field, {HOSTILE}"}
    table = {(row["arm"], row["metric"]): row for row in csv.DictReader(io.StringIO(arms.read_text(encoding="utf-8")))}
    assert table["v1", "T1"]["verdict"] == "better" and table["base", "T1"]["diff"] == ""
    assert table["v2@20x0.6", "T1"]["strength"] == "0.6" and table["v2@20x0.6", "T1"]["steps"] == "20"
    assert machine._csv([("=1+1", "-x", -0.5)]) == "'=1+1,'-x,-0.5\n"


def test_the_card_is_ready_for_the_hub(swept: Path, evidence: Evidence, tmp_path: Path) -> None:
    text = card.write(evidence, tmp_path, with_lora=True).read_text(encoding="utf-8")
    front = text.split("---")[1]
    assert f'instance_prompt: "{TRIGGER}"' in front and '- "lora"' in front and "# license: say which one" in front
    assert "base_model" not in front, "tiny is no model of the Hub"
    assert (tmp_path / f"{TRIGGER}.safetensors").read_bytes() == b"earlier"
    assert "Use v2, step 20, strength 1." in text and "95 % interval" in text and "not on record" in text
    assert "## Limits" in text and "Uncalibrated" in text
    assert str(swept) not in text and str(tmp_path) not in text
    (swept / "runs" / "v2-0" / "lora-000020.safetensors").rename(swept / "gone")
    with pytest.raises(StoreError, match="cannot be read"):
        card.write(evidence, tmp_path, with_lora=True)
    (swept / "gone").rename(swept / "runs" / "v2-0" / "lora-000020.safetensors")


def test_a_card_that_somebody_edited_is_kept(evidence: Evidence, tmp_path: Path) -> None:
    made = card.write(evidence, tmp_path)
    first = made.read_bytes()
    assert card.write(evidence, tmp_path) == made and made.read_bytes() == first
    edited = first.replace(b"# license: say which one", b"license: cc-by-4.0")
    made.write_bytes(edited)
    assert card.write(evidence, tmp_path) == tmp_path / "README.new.md"
    assert made.read_bytes() == edited and (tmp_path / "README.new.md").read_bytes() == first


def test_nothing_in_the_card_is_read_as_markup() -> None:
    assert card._plain("<b>*x*</b> [a](b)\n# c") == "&lt;b&gt;\\*x\\*&lt;/b&gt; \\[a\\](b) \\# c"
    front = card._front_matter({"base": "maker/model-1.5", "trigger": '"\n---\nevil: true'})
    assert 'base_model: "maker/model-1.5"' in front and front.count("\n---") == 1 and "evil: true" in front
    assert "base_model" not in card._front_matter({"base": "a model", "trigger": ""})


def test_a_study_without_scores_has_a_card_and_json_too(swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept.parents[1], tmp_path / "p")
    study = tmp_path / "p" / "studies" / swept.name
    shutil.rmtree(study / "scores")
    bare = gather(study)
    assert json.loads(machine.as_json(bare))["verdict"]["use"] is None
    assert "No LoRA of this study can be named yet" in card.write(bare, tmp_path).read_text(encoding="utf-8")
    assert machine.write_csv(bare, tmp_path)[0].read_text(encoding="utf-8").count("\n") == 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, written: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_page(color_scheme=scheme, bypass_csp=True)
    page.goto(written.as_uri())
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = axe.Axe().run(page, options={"runOnly": rules})
    assert found.violations_count == 0, found.generate_report()
    page.close()


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_a_picture_is_enlarged_and_closed_without_a_script(browser: Any, written: Path) -> None:
    page = browser.new_context(java_script_enabled=False, viewport={"width": 400, "height": 800}).new_page()
    page.goto(written.as_uri())
    picture = page.locator("#grid .zoom img").first
    small = picture.bounding_box()["width"]
    picture.click()
    assert picture.bounding_box()["width"] > 1.5 * small
    page.locator(".shut:visible").click()
    assert picture.bounding_box()["width"] == small
    page.close()
