"""Where pictures can be enlarged: every one has an address of its own, and the keyboard stops once in a row of them.

No script: an address (`#z7`) enlarges a picture, and beside it then stand the ways on, to the one before, to the one
after, and back. So a keyboard has one stop for a row instead of one for a picture, and still comes to all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vez.report.pictures import Album
from vez.report.view import Cell


@dataclass(frozen=True)
class Place:
    """One picture where it stands; `number` is None where there is none to enlarge.

    `before` and `after` are the numbers of its neighbours; `stop`: the keyboard stops here.
    """

    cell: Cell
    number: int | None = None
    before: int | None = None
    after: int | None = None
    stop: bool = False


class Places:
    """Numbers the pictures of a page, in the order they are asked for."""

    def __init__(self, album: Album) -> None:
        self.album, self.last = album, 0

    def __call__(self, rows: Sequence[Sequence[Cell]]) -> tuple[tuple[Place, ...], ...]:
        """The places of one sheet, row by row: each leads to the next of the sheet, each row has one stop."""
        shown = [cell.wanted in self.album.pictures for row in rows for cell in row]
        first, self.last = self.last + 1, self.last + sum(shown)
        found, number = [], first
        for row in rows:
            places, stop = [], True
            for cell in row:
                if cell.wanted not in self.album.pictures:
                    places.append(Place(cell))
                    continue
                before, after = (n if first <= n <= self.last else None for n in (number - 1, number + 1))
                places.append(Place(cell, number, before, after, stop))
                number, stop = number + 1, False
            found.append(tuple(places))
        return tuple(found)
