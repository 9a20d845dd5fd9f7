"""Every table of docs/performance.md that a CPU can make, one benchmark after the other: about an hour.

    python benchmarks/all.py [--quick] [--only frechet neighbours …] > performance.txt

Each runs in a process of its own, with its peers; nothing else should run on the machine. --quick: small sizes and one
round, to see that all of it works.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

COMMANDS = [
    "frechet.py --dims 2048 --samples 0 --repeats 5",
    "neighbours.py --repeats 5",
    "neighbours.py --features noise",
    "neighbours.py --features collapsed",
    "neighbours.py --features codes --dims 2048",
    "neighbours.py --features smoothed",
    "neighbours.py --features noise --samples 2000 --dims 256",
    "neighbours.py --features collapsed --samples 4000 --dims 256",
    "neighbours.py --features smoothed --samples 2000 --dims 2048",
    "neighbours.py --features smoothed --samples 4000 --dims 256",
    "neighbours.py --float-only",
    "neighbours.py --float-only --features noise",
    "neighbours.py --samples 50000 --dims 4096 --alone",
    "kernel.py",
    "extraction.py --images 64 --repeats 5",
    "evaluation.py",
    "profiles.py",
    "ddgan_step.py --repeats 9",
]
QUICK = [
    "frechet.py --dims 256 --samples 0 --repeats 1",
    "neighbours.py --samples 1000 --dims 128 --repeats 1",
    "neighbours.py --samples 1000 --dims 128 --repeats 1 --features noise",
    "neighbours.py --samples 1000 --dims 128 --repeats 1 --features collapsed",
    "neighbours.py --samples 1000 --dims 128 --repeats 1 --features codes",
    "neighbours.py --samples 1000 --dims 128 --repeats 1 --features smoothed",
    "neighbours.py --samples 1000 --dims 128 --repeats 1 --float-only",
    "neighbours.py --samples 2000 --dims 128 --repeats 1 --alone",
    "kernel.py --samples 2000 --dim 128 --repeats 1",
    "extraction.py --images 4 --repeats 1",
    "evaluation.py --images 16 --many 200 --repeats 1",
    "profiles.py --images 4 --samples 1000 --dim 128 --repeats 1",
    "ddgan_step.py --batch 2 --repeats 1",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    names = sorted({command.partition(".py")[0] for command in COMMANDS})
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    options = parser.parse_args()
    failed = []
    for command in QUICK if options.quick else COMMANDS:
        if command.partition(".py")[0] not in options.only:
            continue
        print(f"\n$ python benchmarks/{command}", flush=True)
        script, *arguments = shlex.split(command)
        done = subprocess.run([sys.executable, str(Path(__file__).parent / script), *arguments], check=False)
        failed += [command] * (done.returncode != 0)
    sys.exit(f"failed: {'; '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
