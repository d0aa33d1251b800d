"""What lint wrote about a dataset, on the page: findings worst first, bars, the map with its holes, advice."""

import re
import shutil
from pathlib import Path

import pytest
from study_on_disk import HOSTILE
from test_page import Outline

from vez.errors import StoreError
from vez.images.findings import Finding
from vez.lint import artifact
from vez.lint.artifact import Advice, Attribute, Diversity, Map, Measure, Trust
from vez.report.build import report
from vez.report.dataset_section import MOST_FINDINGS, bars, lint_parts
from vez.report.evidence import gather
from vez.report.figures import number_of
from vez.store import making, open_artifact

FINDINGS = [
    Finding("*", "trigger-pieces", "no·sn·ja·outfit", "", "the pieces", "nothing to do", level="info"),
    Finding("07.jpg", "caption-misfit", f"9. of 34: {HOSTILE}", "among the first 3", "does not fit", "correct it"),
    Finding("08.jpg", "caption-loop", "bald", "", "it repeats itself", "rewrite it", waived="it is a name"),
    Finding("01.jpg", "shared-source", "the same page", "none", "memory", "exclude one", other="02.jpg", level="error"),
]
DIVERSITY = Diversity(
    pictures=30,
    measures=(
        Measure("sources", 22.0, 30, 30, 30, "one page is one source"),
        Measure("backgrounds", 4.25, 9, 28, 30, "overlap", {"plain": 0.75, "street": 0.25}, {"caption": 20, "CLIP": 8}),
    ),
    map=Map("framing", "pose", ("full", "half"), ("standing", "seated"), ((12, 0), (3, 4)), 19, 30),
    advice=(Advice("back view", "view", 1.31, 3), Advice("seated", "pose", 1.2, 3)),
    attributes=(Attribute("light", "snow", 30, 20, 2, 2, "absorbed by the trigger"),),
    trust=(
        Trust("background", "agrees", 20, 19, 0.2),
        Trust("light", "unchecked", 3, 1, 0.1),
        Trust("pose", "disagrees", 16, 5, 0.25),
    ),
    not_measured={"views by sight": f"no words for {HOSTILE}"},
    clip="tiny 531e8be2346f",
)


def write_lint(project: Path, dataset: str, findings: list[Finding], diversity: Diversity) -> Path:
    """A lint of one of the project's datasets."""
    folder = next((project / ".vez" / "datasets").glob(f"{dataset}-*"))
    into = project / ".vez" / "lints" / folder.name
    parents = {"dataset": open_artifact(folder).id}
    with making(into, kind=artifact.KIND, parents=parents, config={}, version=artifact.VERSION) as made:
        artifact.save(made.path, findings, diversity)
    return into


@pytest.fixture(scope="module")
def project(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("linted") / "project"
    shutil.copytree(study.parents[1], root)
    write_lint(root, "v2", FINDINGS, DIVERSITY)
    return root


@pytest.fixture(scope="module")
def text(project: Path, study: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(project / "studies" / study.name, tmp_path_factory.mktemp("out") / "r.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Outline:
    return Outline(text)


def test_findings_stand_worst_first_with_all_that_is_known(page: Outline) -> None:
    assert "Lint: 1 error, 1 warning, 1 remark, 1 waived" in page.text
    places = [page.text.index(check) for check in ("shared-source", "caption-misfit", "trigger-pieces", "caption-loop")]
    assert places == sorted(places)
    for words in ("01.jpg and 02.jpg", "the same page", "exclude one", "the whole set", "accepted: it is a name"):
        assert words in page.text, words


def test_hostile_text_stays_text(page: Outline, text: str) -> None:
    assert "<script" not in text and f"9. of 34: {HOSTILE}" in page.text and f"no words for {HOSTILE}" in page.text
    part = bars([Measure("<b>", 1.0, 2, 2, 2, "")])
    assert "<b>" not in part and "&lt;b&gt;" in part


def test_effective_numbers_are_bars_and_a_table_with_n(page: Outline, text: str) -> None:
    assert "4.2 of at most 9" in page.text and "22.0 of at most 30" in page.text
    assert "28 of 30" in page.text and "CLIP 8, caption 20" in page.text and "plain 75%, street 25%" in page.text
    widths = [float(w) for w in re.findall(r'<rect class="full"[^>]*width="([\d.]+)"', text)]
    assert widths == [pytest.approx(190 * 22 / 30, abs=0.1), pytest.approx(190 * 4.25 / 9, abs=0.1)]
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.of("svg"))


def test_the_map_has_holes_and_the_advice_its_order(page: Outline, text: str) -> None:
    assert text.count('class="hole"') == 1
    assert "Framing by pose, 19 of 30 pictures" in page.text
    assert page.text.index("back view") < page.text.index("3 pictures would make the pose 20% more varied")


def test_what_clip_says_is_called_an_opinion_and_what_is_missing_is_said(page: Outline) -> None:
    assert "tiny 531e8be2346f" in page.text and "it is an opinion" in page.text
    assert "background: agrees with 19 of the 20 captions that name one (4 would by chance)" in page.text
    assert "light: unchecked" in page.text and "pose: " not in page.text.split("Held against the captions")[1][:300]
    assert "Not measured: 1 thing" in page.text and "absorbed by the trigger" in page.text


def test_a_dataset_without_a_lint_says_so(page: Outline) -> None:
    assert page.text.count("Its captions were not linted") == 1  # v1's
    assert page.text.count("vez lint") == 2


def test_only_lints_of_the_studys_datasets_are_read(project: Path, study: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    (lint,) = gather(root / "studies" / study.name).lints
    assert lint.dataset == open_artifact(next((root / ".vez/datasets").glob("v2-*"))).id
    stranger = root / ".vez" / "lints" / "other-0"
    with making(stranger, kind=artifact.KIND, parents={"dataset": "f" * 64}, config={}, version=1) as made:
        (made.path / "findings.jsonl").write_text("nonsense")
    assert len(gather(root / "studies" / study.name).lints) == 1
    (lint.path / "diversity.json").write_text("{}")
    with pytest.raises(StoreError, match="lint again"):
        gather(root / "studies" / study.name)


def test_thousands_of_findings_are_cut_and_counted(project: Path, study: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    many = [Finding(f"{i}.jpg", "trigger-missing", "x", "", "why", "fix", level="error") for i in range(3000)]
    write_lint(root, "v2", [*FINDINGS, *many], Diversity(pictures=0))
    page = Outline(report(root / "studies" / study.name, tmp_path / "r.html").read_text("utf-8"))
    assert f"{3004 - MOST_FINDINGS} more stand in findings.jsonl" in page.text and number_of(3001, "error") in page.text
    part = next(iter(lint_parts(gather(root / "studies" / study.name).lints).values()))
    assert len(part.findings) == MOST_FINDINGS and part.bars == ""
