"""Pictures → `Material`: everything is looked at once, by every encoder there is, and read for its own pixels.

What is drawn need not come from a LoRA: pictures of any generator can be given, which is how the evaluator itself is
put to the test (`vez.metrics.definitions.measure` takes what comes out).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vez.config import Project
from vez.metrics.embed import Clip, Dino, Encoder, foreground_likeness, image_features, text_features
from vez.metrics.material import Drawn, Material, Vectors, View
from vez.metrics.surface import surface
from vez.metrics.texts import PREFIX, texts_of


def gather(
    pictures: Sequence[Path],
    drawn: Sequence[Drawn],
    *,
    project: Project,
    clip: Clip,
    base: str | None = "base",
    dino: Dino | None = None,
    reference: Sequence[Path] = (),
    masks: Sequence[Path | None] = (),
    training: Mapping[str, Sequence[Path]] | None = None,
    gallery: Sequence[Path] = (),
    cache: Path | None = None,
) -> Material:
    """Look at everything.

    Args:
        pictures: the files of ``drawn``, in its order; arms and prompts are what ``drawn`` says.
        drawn: what each of them is.
        project: trigger, noun, describing words and look-alikes.
        clip: who compares pictures with texts, and judges likeness where there is no ``dino``.
        base: the arm without a LoRA; None where there is none.
        dino: who judges likeness.
        reference: held-out real pictures of the concept that no arm was trained on.
        masks: for each of these where its subject is (8-bit grey, white), or None; empty: there are none.
        training: arm → the pictures it was trained on.
        gallery: real pictures of look-alikes.
        cache: folder for what was seen, by content; None keeps nothing.
    Raises:
        DataError: a picture cannot be read.
    """
    drawn, trained = tuple(drawn), dict(training or {})

    def view(encoder: Encoder) -> View:
        return _view(encoder, pictures, reference, masks, trained, gallery, cache)

    texts = texts_of(drawn, project)
    vectors = text_features(clip, [PREFIX + text for text in texts]).astype(np.float64)
    return Material(
        drawn=drawn,
        clip=view(clip),
        texts=dict(zip(texts, vectors, strict=True)),
        project=project,
        base=base,
        dino=None if dino is None else view(dino),
        pixels=surface(pictures, trained, cache=cache),
    )


def _view(
    encoder: Encoder,
    pictures: Sequence[Path],
    reference: Sequence[Path],
    masks: Sequence[Path | None],
    training: Mapping[str, Sequence[Path]],
    gallery: Sequence[Path],
    cache: Path | None,
) -> View:
    known: dict[Path, Vectors] = {}

    def see(paths: Sequence[Path]) -> Vectors:
        new = [path for path in dict.fromkeys(paths) if path not in known]
        known.update(zip(new, image_features(encoder, new, cache=cache).astype(np.float64), strict=True))
        return np.stack([known[path] for path in paths]) if paths else np.zeros((0, encoder.width))

    masked = [(path, mask) for path, mask in zip(reference, masks, strict=False) if mask is not None]
    foreground = None
    if len(masked) == len(reference) > 1:
        both = foreground_likeness(encoder, [*pictures, *reference], masked, cache=cache).astype(np.float64)
        foreground = both[: len(pictures)], both[len(pictures) :]
    return View(
        name=encoder.kind,
        images=see(pictures),
        reference=see(reference),
        training={arm: see(paths) for arm, paths in training.items()},
        gallery=see(gallery) if gallery else None,
        foreground=None if foreground is None else foreground[0],
        foreground_real=None if foreground is None else foreground[1],
    )
