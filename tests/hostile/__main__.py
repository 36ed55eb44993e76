"""`python -m tests.hostile`: everything that strangers, killers and full disks can do, with counts. Under 15 minutes.

--quick: a slice of it, as in the suite. --only: some of the parts.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

# What each part is given: files of every kind; values for every entry of the face; every n-th command line; every n-th
# moment of a write, and kills at random moments.
WHOLE = {"opening": ["40"], "faces": ["60"], "commands": ["1"], "kills": ["1", "60"]}
QUICK = {"opening": ["1"], "faces": ["2"], "commands": ["30"], "kills": ["12", "1", "pairs"]}


def main() -> None:
    """Run the parts one after the other, each in a process of its own; the status is 1 where one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=WHOLE, default=list(WHOLE))
    chosen = parser.parse_args()
    parts, failed = QUICK if chosen.quick else WHOLE, []
    for name in chosen.only:
        start = time.perf_counter()
        command = [sys.executable, "-m", f"tests.hostile.{name}", *parts[name]]
        code = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL).returncode
        failed += [name] if code else []
        print(f"{name}: {'found something' if code else 'held'}, {time.perf_counter() - start:.0f} s", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
