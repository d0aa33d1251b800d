"""The lint stage: a frozen dataset → findings about its words and its variety, as an artifact."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from vez.config import WORD_CHECKS, Config, Project
from vez.config import Dataset as Recipe
from vez.dataset import Dataset, Row
from vez.errors import ConfigError, StoreError
from vez.events import Done, Event, Note, Stage
from vez.images.findings import Finding, waive
from vez.lint import diversity, looks, sources, words
from vez.lint.artifact import KIND, VERSION, Diversity, Lint, Measure, load, save
from vez.lint.labels import GROUPS, NUISANCE
from vez.lint.looks import Floats, Sight
from vez.lint.rules import FEW, SHARE, finding
from vez.lint.seen import Seen, see
from vez.lint.tokens import Tokens
from vez.lint.words import Caption
from vez.metrics.embed import Clip, image_features
from vez.rewording import wordings
from vez.store import artifact_id, find, making

__all__ = ["KIND", "VERSION", "Lint", "lint", "load", "made"]

_BEST: Final = 3  # evaluation of BLIP's captions: the own one belongs among the first three
_BEST_SHARE: Final = 0.05  # of many captions, among the first twentieth
_CONSTANT, _UNNAMED = 0.8, 0.2
_PALETTES: Final = 512  # pictures whose colours are compared, evenly spread over the dataset


def lint(
    config: Config,
    name: str,
    dataset: Dataset,
    *,
    into: Path,
    clip: Clip | None,
    tokenizer: Tokens,
    cache: Path | None = None,
) -> Iterator[Event]:
    """Find what is wrong with a dataset before it is trained on; the last event is Done with the artifact's folder.

    Nothing is done if ``into`` holds this very lint already. Without a CLIP, what needs one is listed in the artifact
    as not measured.

    Args:
        config: trigger, noun, waivers and studies come from here.
        name: the dataset's name in vez.toml.
        dataset: what `build` froze.
        into: the artifact's folder.
        clip: who looks at the pictures; None: nobody.
        tokenizer: the base's, from `tokens_of`.
        cache: folder for picture vectors, by content.
    Raises:
        ConfigError: there is no such dataset in vez.toml.
        StoreError: a picture was changed, or ``into`` cannot be written.
        DataError: the dataset's provenance.jsonl is damaged.
    """
    if name not in config.dataset:
        raise ConfigError(f"there is no [dataset.{name}]; known are: {', '.join(config.dataset) or 'none'}")
    recipe = config.dataset[name]
    made_with = _made_with(config, name, None if clip is None else clip.sha256, tokenizer)
    parents = {"dataset": dataset.id}
    id = artifact_id(KIND, parents, made_with, VERSION)
    if find(into, id) is None:
        with making(into, kind=KIND, parents=parents, config=made_with, version=VERSION) as writing:
            yield Stage("lint", len(dataset.rows), name)
            rows, provenance = dataset.rows, dataset.provenance
            source = sources.sources_of(rows, provenance)
            captions = _captions(rows, source, drawn=_draws(config, name))
            found = words.read(captions, config.project, tokenizer, role=recipe.role)
            rows = tuple(replace(row, caption=said.text) for row, said in zip(rows, captions, strict=True))
            found += sources.set_findings(rows, provenance, project=config.project, role=recipe.role)
            found += sources.length(rows, config.study, name)
            found += _by_hand(dataset)
            yield Note(f"read {len(rows)} captions")
            pictures = None
            if clip is not None:
                pictures = image_features(clip, [dataset.path / row.file for row in rows], cache=cache)
                found += _misfits(clip, pictures, rows, source, config.project)
                found += _same_scenes(pictures, rows, recipe, {f.file for f in found if f.check == "shared-source"})
                yield Note(f"looked at {len(rows)} pictures")
            seen = _see(clip, pictures, rows)
            found += _one_sided(seen)
            found += _unnamed(seen, config.project)
            save(writing.path, waive(found, recipe.waive), _diversity(dataset, source, seen, clip))
    yield Done(into, id)


def made(config: Config, name: str, dataset: Dataset, *, into: Path, clip: str | None, tokenizer: Tokens) -> str | None:
    """The id of this very lint if ``into`` holds it; ``clip`` is the hash of who looks at the pictures."""
    id = artifact_id(KIND, {"dataset": dataset.id}, _made_with(config, name, clip, tokenizer), VERSION)
    return id if find(into, id) is not None else None


def _made_with(config: Config, name: str, clip: str | None, tokenizer: Tokens) -> dict[str, Any]:
    """All that decides what is found, besides the dataset."""
    recipe = config.dataset[name]
    lengths = {"steps", "images_seen", "epochs", "repeats"}
    return {
        "project": config.project.model_dump(include={"trigger", "noun", "describes", "public", "tokens"}),
        "role": recipe.role,
        **({"wildcards": True} if _draws(config, name) else {}),
        "same_scene": recipe.checks.same_scene,
        "waive": [waiver.model_dump(mode="json") for waiver in recipe.waive],
        "tokenizer": tokenizer.sha256,
        "clip": clip,
        "studies": {
            study: of.model_dump(include=lengths)
            | {"batches": sorted({v.batch for v in of.variant.values() if v.dataset == name})}
            for study, of in config.study.items()
            if any(v.dataset == name for v in of.variant.values())
        },
    }


def _draws(config: Config, name: str) -> bool:
    """Whether any variant that is trained on the dataset, or beside it, draws its captions' wording."""
    variants = [variant for study in config.study.values() for variant in study.variant.values()]
    return any(variant.wildcards for variant in variants if name in (variant.dataset, variant.prior))


def _captions(rows: Sequence[Row], source: Sequence[int], *, drawn: bool) -> list[Caption]:
    """The captions; where their wording is drawn, with all that may be drawn, and the first as what is said."""
    told = [wordings(row.caption) if drawn else (row.caption,) for row in rows]
    return [
        Caption(row.source, texts[0], of, row.split == "train", row.crop, texts if drawn else ())
        for row, of, texts in zip(rows, source, told, strict=True)
    ]


def _see(clip: Clip | None, pictures: looks.Pictures | None, rows: Sequence[Row]) -> dict[str, Seen]:
    """What is known of the pictures trained on."""
    places = [i for i, row in enumerate(rows) if row.split == "train"]
    told: Mapping[str, Sight] | None = None
    if clip is not None and pictures is not None:
        told = looks.sights(clip, pictures[places])
    return see([rows[i] for i in places], told)


def _by_hand(dataset: Dataset) -> Iterator[Finding]:
    """What `build` found about the captions by hand: which are empty, unreadable, or nobody's."""
    return (replace(found, waived="") for found in dataset.findings if found.check in WORD_CHECKS)


def _misfits(
    clip: Clip, pictures: looks.Pictures, rows: Sequence[Row], source: Sequence[int], project: Project
) -> Iterator[Finding]:
    """Captions that CLIP ranks too low for their picture. Empty captions have a finding of their own."""
    texts = [words.plain(row.caption, project) for row in rows]
    said = [i for i, text in enumerate(texts) if text]
    best = max(_BEST, math.ceil(_BEST_SHARE * len({texts[i] for i in said})))
    for misfit in looks.misfits(clip, pictures[said], [texts[i] for i in said], [source[i] for i in said], best=best):
        row = rows[said[misfit.place]]
        value = f"place {misfit.rank} of {misfit.of}: {row.caption}"
        yield finding("caption-misfit", row.source, value, f"among the first {best}", better=f"“{misfit.better}”")


def _same_scenes(pictures: looks.Pictures, rows: Sequence[Row], recipe: Recipe, told: set[str]) -> Iterator[Finding]:
    """Held-out pictures that CLIP takes for the scene of a picture trained on: a warning, since CLIP may be wrong."""
    train = [i for i, row in enumerate(rows) if row.split == "train"]
    held_out = [i for i, row in enumerate(rows) if row.split == "held_out" and row.source not in told]
    why = "CLIP takes both for one scene; if they are, the held-out one rewards memory, and losses flatter the LoRA"
    for i, (j, cosine) in zip(held_out, looks.nearest(pictures[held_out], pictures[train]), strict=False):
        if cosine >= recipe.checks.same_scene:
            value, other = round(cosine, 3), rows[train[j]].source
            limit = recipe.checks.same_scene
            yield finding("shared-source", rows[i].source, value, limit, other=other, level="warning", why=why)


def _one_sided(seen: Mapping[str, Seen]) -> Iterator[Finding]:
    """One background, framing or pose on more than half of the pictures."""
    for group, check in (("background", "one-background"), ("framing", "one-framing"), ("pose", "one-pose")):
        most = diversity.commonest(seen.get(group), few=FEW)
        if most is not None and most[1] > SHARE * most[2]:
            label, count, known = most
            named = sum(label in (seen[group].group.labels[i].name for i in of) for of in seen[group].named)
            by = Counter(who for who in seen[group].told_by if who)
            value = f"{label} on {count} of {known} pictures; named in {named} caption{'' if named == 1 else 's'}"
            value += f"; told by {', '.join(f'{who} {n}' for who, n in sorted(by.items()))}"
            yield finding(check, value=value, threshold=SHARE)


def _unnamed(seen: Mapping[str, Seen], project: Project) -> Iterator[Finding]:
    """What CLIP sees on nearly all pictures, no caption names, and the concept's own words do not hold either."""
    own = f"{project.noun} {project.describes}"
    for group in NUISANCE:
        of = seen.get(group.name)
        if of is None or of.clip is None or len(of.clip) < FEW:
            continue
        label = int(np.bincount(of.clip).argmax())
        on, said = float((of.clip == label).mean()), float(np.mean([label in named for named in of.named]))
        if on >= _CONSTANT and said <= _UNNAMED and label not in group.named(own):
            value = (
                f"{group.name} {group.labels[label].name} on {on:.0%} of the pictures, in {said:.0%} of the captions"
            )
            yield finding("unnamed", value=value, threshold=f"{_CONSTANT:.0%} and {_UNNAMED:.0%}")


def _diversity(dataset: Dataset, source: Sequence[int], seen: Mapping[str, Seen], clip: Clip | None) -> Diversity:
    trained = [i for i, row in enumerate(dataset.rows) if row.split == "train"]
    view = seen.get("view")
    measures: dict[str, Measure | None] = {"sources": diversity.of_sources([source[i] for i in trained])}
    for name in ("background", "light", "framing"):
        measures[name] = diversity.of_group(seen[name]) if name in seen else None
    measures["pose"] = diversity.of_poses(seen["pose"], view) if "pose" in seen else None
    measures["wearer"] = diversity.of_group(seen["wearer"]) if "wearer" in seen else None
    if trained:
        measures["colours"] = diversity.of_colours(_palettes(dataset), of=len(trained))
    have_map = "framing" in seen and "pose" in seen
    return Diversity(
        pictures=len(trained),
        measures=tuple(measure for measure in measures.values() if measure is not None),
        map=diversity.draw_map(seen["framing"], seen["pose"], view) if have_map else None,
        advice=tuple(diversity.advise(seen)),
        attributes=tuple(diversity.attributes(seen)),
        trust=tuple(of.trust for of in seen.values() if of.trust.state != "unasked" or of.trust.unknown),
        not_measured=_not_measured(dataset, seen, clip),
        # not clip.name: it may be a folder of this machine
        clip="" if clip is None else f"{Path(clip.name).name} {clip.sha256[:12]}",
    )


def _palettes(dataset: Dataset) -> Floats:
    rows = dataset.train
    step = max(1, -(-len(rows) // _PALETTES))
    try:
        return np.stack([diversity.colour_features(dataset.pixels(row)) for row in rows[::step]])
    except OSError as error:
        raise StoreError(
            f"a picture in {dataset.path} cannot be read ({error}); delete the folder and build"
        ) from error


def _not_measured(dataset: Dataset, seen: Mapping[str, Seen], clip: Clip | None) -> dict[str, str]:
    """What is missing, and what it would have needed."""
    missing: dict[str, str] = {}
    if clip is None:
        needs = "needs a CLIP that looks at the pictures"
        missing |= {"whether captions fit their pictures": needs, "what no caption names": needs}
        if dataset.held_out:
            missing["near copies between training and held-out pictures"] = needs
    for group in GROUPS:
        of = seen.get(group.name)
        if of is None:
            missing[group.plural] = "hardly any caption names somebody, and this is asked of people"
            continue
        trust = of.trust
        if trust.state == "disagrees":
            missing[f"{group.plural} by sight"] = (
                f"this CLIP agrees with {trust.agree} of the {trust.n} captions that name one, where chance alone "
                f"gives {trust.chance * trust.n:.0f}; it is not asked, and what captions do not say stays unknown"
            )
        elif trust.state == "unasked" and clip is not None:
            missing[f"{group.plural} by sight"] = f"this CLIP has no words for {', '.join(trust.unknown)}"
        if not of.known.any() and group.name not in ("colour",):
            missing[group.plural] = "no caption says it" + ("" if clip is None else ", and CLIP cannot")
    if not any(record.author for record in dataset.provenance.values()):
        missing["authors"] = "needs provenance.jsonl with authors beside the pictures"
    return missing
