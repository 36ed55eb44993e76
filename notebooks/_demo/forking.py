"""Where kernels can be forked, one process loads everything for them; it begins before anything else of the demo."""

import os
import sys
from multiprocessing import forkserver

CAN_FORK = sys.platform == "linux"  # macOS forbids it to who has used its frameworks, Windows has no fork
# A pool of threads does not survive a fork: the warm process makes none, and each kernel its own.
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def warm_up() -> None:
    """Begin to load everything in the process that kernels are forked from."""
    if CAN_FORK:
        os.environ.update(ALONE, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        forkserver.set_forkserver_preload(["warm"])
        forkserver.ensure_running()
