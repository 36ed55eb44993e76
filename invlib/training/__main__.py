"""`python -m invlib.training --config FILE --text FILE`."""

import sys

from invlib.training.loop import main

if __name__ == "__main__":
    sys.exit(main())
