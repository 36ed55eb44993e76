"""`python -m tests.hostile`: everything that strangers, killers and full disks can do, with counts. Under 15 minutes.

--quick: a slice of it, as in the suite. --only: some of the parts.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HOSTILE": "1"}

# What each part is given: files of every kind; values for every entry of the face; every n-th command line; every n-th
# moment of a write, and kills at random moments.
WHOLE = {"kills": ["1", "60"], "opening": ["40"], "faces": ["60"], "commands": ["1"]}  # what takes longest first
QUICK = {"opening": ["1"], "faces": ["2"], "commands": ["30"], "kills": ["12", "1", "pairs"]}
COMMANDS = {name: [f"tests.hostile.{name}", *options] for name, options in WHOLE.items()}
COMMANDS["demo"] = ["pytest", "-q", "-rP", "tests/hostile/test_demo.py"]  # the suite has all of it but the crowd


def main() -> None:
    """Run the parts, two at a time and each in a process of its own; the status is 1 where one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    chosen = parser.parse_args()
    quick = {name: [f"tests.hostile.{name}", *options] for name, options in QUICK.items()}
    commands = COMMANDS | quick if chosen.quick else COMMANDS
    with ThreadPoolExecutor(2) as threads:
        sys.exit(any(list(threads.map(run, chosen.only, [commands[name] for name in chosen.only]))))


def run(name: str, command: list[str]) -> int:
    """The status of a part; what it said, and how long it took, is printed when it has ended."""
    start, pipes = time.perf_counter(), {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=Path(__file__).parents[2], **pipes)
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # On a machine with other work the clock says more than the parts take.
    took = f"{time.perf_counter() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of a processor"
    print(f"{said}{name}: {'found something' if process.returncode else 'held'}, {took}\n", flush=True)
    return process.returncode


if __name__ == "__main__":
    main()
