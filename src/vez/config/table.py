"""What every table of vez.toml is built from."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # names become folder and file names
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
PLACEHOLDERS = ("trigger", "noun", "describes")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Table(BaseModel):
    """A frozen table that refuses unknown keys; the text under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def check_placeholders(text: str, *, known: tuple[str, ...] = PLACEHOLDERS) -> None:
    """Raises ValueError for a {word} that nothing fills in."""
    for word in PLACEHOLDER.findall(text):
        if word not in known:
            can = ", ".join(f"{{{name}}}" for name in known[:-1])
            raise ValueError(f"{{{word}}} cannot be filled in; only {can} and {{{known[-1]}}} can")
