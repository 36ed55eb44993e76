"""Seconds that do not count what others do on the same cores."""

import time

import torch


def seconds(device: torch.device | str = "cpu") -> float:
    """Processor time per thread on a CPU, where it stands still while others have the core; else wall-clock time.

    Only differences mean something. Work that an accelerator still has to do is waited for.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()
