"""The tokenizer and the CLIP of the package, loaded once."""

import pytest

from vez.lint.tokens import Tokens, tokens_of
from vez.metrics import embed
from vez.metrics.embed import Clip


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """tiny's."""
    return tokens_of("tiny")


@pytest.fixture(scope="session")
def clip() -> Clip:
    """tiny's."""
    return embed.load(embed.clip_for("tiny"))
