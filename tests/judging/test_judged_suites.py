"""Judging what vez's own suites draw: their prompts by name, whatever the kind of concept."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vez.config import Project, Study
from vez.judging import material
from vez.judging.plan import plan
from vez.store import making
from vez.suite import SUITES, asked

ARMS = ("a", "b", "base")
KINDS = [(suite, kind) for suite, kinds in SUITES.items() for kind in kinds]


def drawn(root: Path, study: Study, project: Project) -> Path:
    """``root``/studies/s with the pictures that a study asks for, each of one pixel."""
    wanted = asked(study, project)
    config = {"arms": {arm: None if arm == "base" else {"lora": "a" * 64} for arm in ARMS}, **wanted.about}
    with making(root / "studies" / "s" / "samples", kind="samples", parents={}, config=config, version=1) as made:
        rows = []
        for arm in ARMS:
            (made.path / arm).mkdir()
            for prompt in wanted.prompts:
                for seed in range(prompt.seeds or wanted.sampling.seeds):
                    file = f"{arm}/{prompt.id}-{seed}.png"
                    Image.new("RGB", (1, 1)).save(made.path / file)
                    told = {key: project.expand(getattr(prompt, key)) for key in ("role", "text", "group", "context")}
                    rows.append({"arm": arm, "prompt": prompt.id, "seed": seed, "file": file, **told})
        (made.path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "studies" / "s"


@pytest.mark.parametrize(("suite", "kind"), KINDS)
def test_the_standard_pictures_of_every_suite_make_a_plan_of_sixty_votes(suite: str, kind: str, tmp_path: Path) -> None:
    about = {"base": "tiny", "trigger": "zolka", "noun": "thing", "describes": "a woven thing", "kind": kind}
    project = Project.model_validate(about)
    variants = {name: {"dataset": "d"} for name in ("a", "b")}
    study = Study.model_validate({"steps": 1, "suite": suite, "variant": variants})
    found = material.read(drawn(tmp_path, study, project), project)
    wanted = {prompt.id for prompt in asked(study, project).prompts if prompt.role == "trigger"}
    assert set(found.prompts) == wanted and len(wanted) >= 12
    assert not any("zolka" in text or "{" in text for text in found.texts.values()), "a judge reads plain words"
    pairs = plan(found, judge="ana", question="concept", votes=60)
    assert len(pairs) == 60
    assert {cell.arm for pair in pairs for cell in (pair.left, pair.right)} == set(ARMS)
    assert len({pair.left.prompt for pair in pairs}) >= min(len(wanted), 20)
