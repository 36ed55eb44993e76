"""`python -m invlib.studies --text FILE`: score a checkpoint beside its controls."""

import sys

from invlib.studies.score import main

if __name__ == "__main__":
    sys.exit(main())
