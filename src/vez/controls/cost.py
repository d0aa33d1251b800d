"""What a study's trained controls cost, said before they are made."""

from vez.config import Config
from vez.plan import HEADER, Cost, Pass, Plan, span
from vez.room import FACTOR, FULL

__all__ = ["added_bytes", "planned"]


def planned(config: Config, made: Plan) -> str:
    """What they cost, for a person; "" where the study asks for none."""
    study = config.study[made.study]
    if not study.controls:
        return ""
    of, one = study.controlled, _pass(made, study.controlled)
    trained = [kind for kind in study.controls if kind != "random"]
    said = [f"controls after {of}: {', '.join(study.controls)}"]
    seconds: float | None = 0.0
    if trained:
        each = None if one.seconds is None else one.seconds / len(one.variants)
        seconds = None if each is None else each * len(trained)
        said.append(f"{len(trained)} run{'s' if len(trained) > 1 else ''} of {one.steps} steps")
    images = len(study.controls) * made.drawn.each + ("class" in study.controls) * one.pictures
    seconds = None if seconds is None or made.drawn.seconds is None else seconds + images * made.drawn.seconds
    said.append(f"{images} images")
    time = "time unknown until the first are drawn" if seconds is None else f"about {span(seconds)}"
    return f"{'; '.join(said)}; {time}; they have no say in the verdict"


def added_bytes(config: Config, made: Plan, cost: Cost) -> float:
    """What they write at most: LoRAs in fp32, the state of a run under way, pictures and two datasets."""
    study = config.study[made.study]
    if not study.controls:
        return 0.0
    one, recipe = _pass(made, study.controlled), config.dataset[study.variant[study.controlled].dataset]
    loras = (len(study.controls) + 4) * (cost.parameters(study.variant[study.controlled]) * FULL + HEADER)
    side = study.sampling.size or int(cost.sizes.unet.get("sample_size") or 64) * FACTOR
    drawn = 3.0 * (len(study.controls) + 2) * made.drawn.each * side**2
    return loras + drawn + 3.0 * 2 * (one.pictures + recipe.held_out) * recipe.resolution**2


def _pass(made: Plan, variant: str) -> Pass:
    return next(one for one in made.passes if variant in one.variants)
