"""The inverter, loaded and warm: what every kernel of the demo finds in place.

One process imports this before anybody comes, and the kernels are forked from it (`kernels`): they share its memory.
"""

import gc

import invlib
import torch

torch.set_num_threads(1)  # a pool of threads would not survive the fork
inverter = invlib.Inverter.load("minilm")
inverter.invert(inverter.encoder.encode(["Warm."]), verify=True)
# Every shape that is multiplied here need not be compiled, and kept, in each kernel. Few queries: somebody may wait.
search = (invlib.search.BestOf(8), invlib.search.Rewrite(max_queries=32), invlib.search.SwapBeam(max_queries=100))
inverter.invert(inverter.encoder.encode(["The lamp in the window burned until morning."]), search=search)
import invlib.widgets  # noqa: E402, F401  with all that the page needs
import ipykernel.ipkernel  # noqa: E402, F401

gc.freeze()  # a collection in a kernel would write into every page that it shares
