from vez.lint.artifact import Advice, Diversity, Map, Measure
from vez.lint.in_words import as_text


def test_numbers_holes_and_advice_are_lines() -> None:
    shares = {"plain": 0.5, "room": 0.25, "forest": 0.125, "snow": 0.124, "beach": 0.001}
    text = as_text(
        Diversity(
            pictures=8,
            measures=(Measure("sources", 8.0, 8, 8, 8, ""), Measure("backgrounds", 3.14, 9, 6, 8, "", shares)),
            map=Map("framing", "pose", ("full", "half"), ("standing", "seated"), ((3, 0), (12, 1)), 16, 30),
            advice=(Advice("at night", "light", 1.25, 1),),
            not_measured={"views": "no caption says it"},
        )
    )
    assert text.splitlines() == [
        "how varied the 8 pictures to train on are, as effective numbers",
        "  sources       8.0 of at most 8",
        "  backgrounds   3.1 of at most 9, told of 6 pictures: plain 50%, room 25%, forest 12%, snow 12%, …",
        "pose by framing, of 16 pictures; a dot is a hole",
        "            full  half",
        "  standing     3    12",
        "  seated       ·     1",
        "to add first",
        "  at night: 1 picture would make the light 25% more varied",
        "not measured",
        "  views: no caption says it",
    ]


def test_nothing_measured_and_hostile_words() -> None:
    text = as_text(Diversity(pictures=0, not_measured={"views": "no words for \x1b[31m"}))
    assert "\x1b" not in text and "\\x1b[31m" in text
