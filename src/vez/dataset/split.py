"""Which pictures are one source, and which are kept from training.

Copies, near-copies and pictures of one page show one scene: they are a group, and a group is trained on or held out as
a whole, so that nothing trained on shows what is held out.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from vez.errors import DataError
from vez.images.checks import Picture
from vez.images.findings import Finding
from vez.images.provenance import Provenance

# Findings about two pictures that make them one source, waived or not: a waiver says that both may stay.
_COPIES: Final = frozenset({"exact-duplicate", "near-duplicate", "same-source"})


def groups(
    files: Sequence[str],
    findings: Iterable[Finding],
    provenance: Mapping[str, Provenance],
    *,
    left_out: Collection[str] = (),
) -> dict[str, tuple[str, ...]]:
    """Name of a group (its first file) → its files, in order. Joined by findings, by page and by original file.

    Files that are ``left_out`` of the dataset stand in no group, but still join the others: what is a copy of one, and
    what comes from the same page as it, show one scene.
    """
    leader = {file: file for file in files}

    def find(file: str) -> str:
        while leader[file] != file:
            leader[file] = leader[leader[file]]  # halve the way for the next who asks
            file = leader[file]
        return file

    def join(one: str, other: str) -> None:
        if one in leader and other in leader:
            first, second = sorted((find(one), find(other)), key=place.__getitem__)
            leader[second] = first

    place = {file: i for i, file in enumerate(files)}
    for finding in findings:
        if finding.check in _COPIES and finding.other:
            join(finding.file, finding.other)
    seen: dict[tuple[str, str], str] = {}
    for file in files:
        record = provenance.get(file)
        for kind in ("page", "original_sha256") if record else ():
            if said := str(getattr(record, kind)):
                join(seen.setdefault((kind, said), file), file)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        if file not in left_out:
            members[find(file)].append(file)
    return {of[0]: tuple(of) for of in members.values()}


def choose_held_out(pictures: Sequence[Picture], grouped: Mapping[str, Sequence[str]], wanted: int) -> frozenset[str]:
    """The files kept from training: whole groups, the smallest first, among equals by the hash of their pixels.

    So the choice depends on what the pictures show and on nothing else. A group that is too large for what is still
    wanted is passed over. Raises DataError where no choice gives ``wanted`` pictures, or none would be left.
    """
    if not pictures:
        raise DataError("no picture is left to train on; see the findings, or drop less")
    if wanted == 0:
        return frozenset()
    pixels = {picture.file: picture.pixels for picture in pictures}
    chosen: list[str] = []
    for of in sorted(grouped.values(), key=lambda of: (len(of), min((pixels[file], file) for file in of))):
        if len(chosen) + len(of) <= wanted:
            chosen += of
    if len(chosen) < wanted or len(pictures) <= wanted:
        raise DataError(
            f"held_out = {wanted}, but the {len(pictures)} pictures come from {len(grouped)} sources, which are never "
            "divided between training and held out, and at least one must be left to train on; lower held_out or add "
            "pictures"
        )
    return frozenset(chosen)
