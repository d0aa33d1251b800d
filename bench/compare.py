"""vez beside the reference (reference.py), interleaved, each in a process of its own with a peak memory of its own.

    python bench/compare.py --base sd1 --size 256 --batch 1 --rank 32 --dtype bf16 --pairs 5 [--arms NAME …]

First the equal-work check: same weights, same inputs, so losses and gradient norms must agree at every step, the
warm-up's and the timed ones' (relative 1e-3 and 1e-2 in fp32; 1e-2 and 5e-2 in bfloat16, where the arms round
differently); the script stops where they part. Then the arms take turns, one step each, A B C A B C …; reported are
medians, the ratio of the medians, and the lowest and highest ratio of a round.
"""

import argparse
import sys
from statistics import median

from arms import ARMS, REFERENCES
from race import Arm, machine, machine_text, race, times
from vez.bench.work import Workload


def main() -> int:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description="vez beside a diffusers + peft loop")
    for option, default in (("base", "tiny"), ("dtype", "bf16"), ("device", "cpu")):
        parser.add_argument(f"--{option}", default=default)
    for option, default in (("size", 128), ("batch", 1), ("rank", 32), ("pairs", 5), ("warm", 4), ("inner", 1)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=[*REFERENCES], help="beside vez")
    options = parser.parse_args()
    ranks = (options.rank,)
    work = Workload(options.base, options.size, options.batch, ranks, options.dtype, options.device, options.pairs)
    work.check()
    arms = [Arm(name, work) for name in (*options.arms, "vez")]
    done = race(arms, warm=options.warm, rounds=options.pairs, inner=options.inner)
    print(
        f"{work.base}, {work.size} px, batch {work.batch}, rank {options.rank}, {work.dtype}, {work.device}; ", end=""
    )
    print(f"{options.warm} turns to warm up, {options.pairs} rounds; {machine_text(machine())}")
    print(f"equal work: losses within {done.apart[0]:.1e}, gradient norms within {done.apart[1]:.1e} at every step\n")
    print(
        "| arm | ms/step, median | fastest | slowest | its time ÷ vez's (rounds' range) | CPU s/step | peak MB ", end=""
    )
    print("| vez's peak ÷ its |")
    print("|---|---|---|---|---|---|---|---|")
    ours = arms[-1]
    for arm in arms:
        middle, low, high = done.ratio(arm, ours)
        used = median(done.seconds(arm, "cpu"))
        print(f"| {arm.name} | {times(done, arm)} | {middle:.2f} ({low:.2f} to {high:.2f}) | {used:.2f} | ", end="")
        print(f"{arm.peak / 1e6:.0f} | {ours.peak / arm.peak:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
