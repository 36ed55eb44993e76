"""`python -m tests.hostile`: everything that strangers, killers and full disks can do, with counts. Under 15 minutes.

--quick: a slice of it, as in the suite. --only: some of the parts.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HOSTILE": "1"}

# What each part is given: files of every kind; values for every entry of the face; every n-th command line; every n-th
# moment of a write, and kills at random moments.
WHOLE = {"opening": ["40"], "faces": ["60"], "commands": ["1"], "kills": ["1", "60"]}
QUICK = {"opening": ["1"], "faces": ["2"], "commands": ["30"], "kills": ["12", "1", "pairs"]}
COMMANDS = {name: [f"tests.hostile.{name}", *options] for name, options in WHOLE.items()}
COMMANDS["demo"] = ["pytest", "-q", "-rP", "tests/hostile/test_demo.py"]  # the suite has all of it but the crowd


def main() -> None:
    """Run the parts one after the other, each in a process of its own; the status is 1 where one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    chosen = parser.parse_args()
    failed = []
    for name in chosen.only:
        command = [f"tests.hostile.{name}", *QUICK[name]] if chosen.quick and name in QUICK else COMMANDS[name]
        start, before = time.perf_counter(), _seconds()
        folder = Path(__file__).parents[2]
        code = subprocess.run([sys.executable, "-m", *command], cwd=folder, stderr=subprocess.DEVNULL).returncode
        failed += [name] if code else []
        took = f"{time.perf_counter() - start:.0f} s, {_seconds() - before:.0f} s of a processor"
        print(f"{name}: {'found something' if code else 'held'}, {took}", flush=True)
    sys.exit(bool(failed))


def _seconds() -> float:
    """What the parts that have ended took of a processor: on a machine with other work, less than the clock says."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
