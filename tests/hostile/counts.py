"""How a part of the hostile tests ends when it is run by itself: with its counts, what was wrong, and a status."""

import sys
from collections import Counter
from collections.abc import Callable


def end(run: Callable[[int], tuple[Counter, list]]) -> None:
    """Run a part with the number on its command line, print what it found, and exit with 1 where that is wrong."""
    counts, wrong = run(int(sys.argv[1]))
    print(*wrong, sep="\n")
    print(dict(counts))
    sys.exit(bool(wrong))
