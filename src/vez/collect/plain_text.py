"""HTML, as servers put it into their metadata, to one line of plain text."""

import re
from html.parser import HTMLParser
from typing import Final

_SILENT: Final = ("script", "style", "template", "noscript")
_BREAKS: Final = ("br", "p", "div", "li", "tr", "td", "th", "table", "ul", "ol", "dd", "dt")
_LONGEST: Final = 500
# Control characters, and marks that turn the direction of what follows them (a name could hide behind them).
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT or any(name == "style" and "none" in (value or "") for name, value in attrs):
            self._silent += tag not in ("br", "img", "input", "meta", "link", "hr")
        elif self._silent:
            self._silent += tag not in ("br", "img", "input", "meta", "link", "hr")
        if tag in _BREAKS:
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
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
    reader.feed(value[:20_000])
    reader.close()
    text = " ".join(_UNSEEN.sub(" ", "".join(reader.pieces)).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
