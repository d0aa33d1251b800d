"""The probes of a study: when they are made, what is told of their cost, and what they read of vez.toml."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from test_study import make_project
from vez import config, probing, rates, study, suite
from vez.cli import app
from vez.config import Config, Project, Prompt, Sampling, Study, Variant
from vez.events import Item, Note, Sampled
from vez.metrics import probes
from vez.metrics.probed import MOST, PASSES, Probes, forwards, results
from vez.plan import image_rate_key
from vez.suite import v1

FEW = 2


@pytest.fixture(autouse=True)
def _few_class_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST", FEW)


def changed(project: Config, old: str, new: str, *, name: str) -> Config:
    text = (project.root / "vez.toml").read_text(encoding="utf-8")
    assert old in text
    (project.root / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    return config.load(project.root / name)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, random_base_folder: Path) -> Config:
    """One variant, of which three checkpoints are kept."""
    made = make_project(tmp_path_factory.mktemp("project"), random_base_folder)
    made = changed(made, "steps = 2\nseeds = [0]", "steps = 3\nsave_every = 1\nseeds = [0]", name="vez.toml")
    text = re.sub(r"(low|one) = .*\n", "", (made.root / "vez.toml").read_text(encoding="utf-8"))
    text = text.replace("[study.small.sampling]\nsteps = 2", '[study.small.sampling]\nprofile = "probe"\nsteps = 2')
    (made.root / "vez.toml").write_text(text, encoding="utf-8")
    return config.load(made.root / "vez.toml")


def probed(project: Config) -> Probes:
    found = results(study.folder_of(project, "small"))
    assert found is not None
    return found


def test_a_probe_study_trains_probes_and_draws_nothing(project: Config) -> None:
    events = list(study.run(project, "small", device="cpu"))
    assert not [event for event in events if isinstance(event, Sampled)]
    assert not (study.folder_of(project, "small") / "samples").exists()
    found = probed(project)
    assert list(found.arms) == ["base", "high@1", "high@2", "high"]
    assert [arm.step for _, arm in found.curve("high-0")] == [1, 2, 3]
    assert len(found.windows) == 1 and found.windows[0].run == "high-0"
    told = [event.text for event in events if isinstance(event, Note)]
    assert any(text.startswith("probes of 3 saved LoRAs without drawing with them: the work of") for text in told)
    assert any(text.startswith("high-0: ") and "sampling" in text for text in told)


def test_the_command_asks_again_only_what_changed(project: Config) -> None:
    list(study.train_runs(project, "small", device="cpu"))
    swept = changed(project, 'profile = "probe"', 'profile = "probe"\nstrengths = [0.5, 1.0]', name="swept.toml")
    ran = CliRunner().invoke(app, ["probe", "-c", str(swept.root / "swept.toml"), "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    assert "probes of 6 saved LoRAs" in ran.output
    assert set(probed(project).arms) >= {"high", "high@x0.5", "high@1x0.5"}
    assert not [event for event in study.probe_runs(swept, "small", device="cpu") if isinstance(event, Item)]


def test_the_plan_tells_the_cost_beforehand_but_of_the_quick_profile(project: Config) -> None:
    each, how = forwards(held_out=2, train=6), project.study["small"].sampling
    images = 4 * each / (2 * how.steps) + MOST
    made = study.plan(project, "small", device="cpu")
    assert made.probes == f"probes of 3 saved LoRAs without drawing with them: the work of {images:.0f} images"
    assert f"  then {made.probes}\n" in made.text()
    key = image_rate_key(project, "small", device="cpu")
    rates.record(project.root, key, [2.0] * 5)
    assert study.plan(project, "small", device="cpu").probes == f"{made.probes}, about {images * 2 / 60:.0f} min"
    quick = changed(project, 'profile = "probe"', 'profile = "quick"', name="quick.toml")
    assert study.plan(quick, "small", device="cpu").probes == ""


@pytest.mark.parametrize(
    ("suite", "profile", "is_part"),
    [
        *((None, profile, True) for profile in (None, "probe", "standard", "thorough")),
        *(("own", profile, True) for profile in ("probe", "standard")),
        *((suite, "quick", False) for suite in (None, "own", "tiny")),
        ("own", None, False),
    ],
)
def test_studies_that_draw_much_are_probed_unasked(suite: Any, profile: Any, is_part: bool) -> None:
    prompts = (Prompt(text="a {trigger}", id="t"),)
    made = {"steps": 1, "variant": {"v": Variant(dataset="d")}, "prompts": prompts, "suite": suite}
    one = Study(**made, sampling=Sampling(profile=profile))
    assert probing.is_part_of(one) == is_part


def test_forwards_are_those_of_the_evaluation_notes() -> None:
    assert forwards(held_out=6, train=28) == PASSES * (6 * 5 + 6 + MOST) and PASSES * 6 * 5 == 480
    assert forwards(held_out=0, train=3) == PASSES * (3 + MOST)
    assert forwards(held_out=100, train=100) == forwards(held_out=MOST, train=MOST)


def test_class_texts_are_the_suite_s_neighbours_or_one_s_own() -> None:
    words = Project(base="x", trigger="zolka", noun="costume", describes="folk costume", kind="garment")
    plain = Study(steps=1, variant={"v": Variant(dataset="d")})
    neighbours = [prompt.text for prompt in v1.LINES["garment"] if prompt.set == "E"]
    assert suite.class_texts(plain, words) == tuple(words.expand(text) for text in neighbours)
    assert not any("zolka" in text or "{" in text for text in suite.class_texts(plain, words))

    def own(*prompts: Prompt) -> tuple[str, ...]:
        return suite.class_texts(plain.model_copy(update={"suite": "own", "prompts": prompts}), words)

    called = Prompt(text="a {trigger}", id="t")
    described = Prompt(text="a {describes} in snow", role="class", id="c")
    near = Prompt(text="a coat", role="none", set="E", id="e")
    assert own(called) == ("a photo of a costume",)
    assert own(called, described) == ("a folk costume in snow",)
    assert own(called, described, near) == ("a coat",)
