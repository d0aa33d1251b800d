"""HTML, as servers put it into their metadata, to one line of plain text."""

import re
from html.parser import HTMLParser
from typing import Final

_SILENT: Final = ("script", "style", "template", "noscript")
_BREAKS: Final = ("br", "p", "div", "li", "tr", "td", "th", "table", "ul", "ol", "dd", "dt")
_VOID: Final = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
_HIDDEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_LONGEST: Final = 500
# Control characters, and marks that turn the direction of what follows them (a name could hide behind them).
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        hidden = any(name == "style" and _HIDDEN.search(value or "") for name, value in attrs)
        if (self._silent or hidden or tag in _SILENT) and tag not in _VOID:
            self._silent += 1
        if tag in _BREAKS:
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            self._silent = max(0, self._silent - 1)

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(data)


def plain(value: object) -> str:
    """The readable text of a piece of HTML on one line, at most 500 characters; empty for what is not text.

    Tags, scripts and hidden parts are left out, entities resolved, control and direction marks taken out.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ""
    reader = _Text()
    # Other declarations ("<![…", "<!DOCTYPE") have no place in a value, and html.parser trips over broken ones.
    reader.feed(_COMMENT.sub("", value[:20_000]).replace("<!", " "))
    reader.close()
    return one_line("".join(reader.pieces))


def one_line(text: str) -> str:
    """The text on one line, at most 500 characters, without control and direction marks."""
    text = " ".join(_UNSEEN.sub(" ", text).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
