"""The demo's kernels: a process for each visitor, forked from one that has everything loaded, and ended with its page.

A forked kernel shares the weights and the libraries with all the others: a visitor costs what a visit writes.
"""

import asyncio
import ctypes
import multiprocessing
import os
import threading
from collections import defaultdict
from importlib.metadata import EntryPoint
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Integer

from forking import CAN_FORK, THREADS

PATIENCE = 5  # seconds: a page that is loaded again waits for the seat that it has just given up
GONE = 20  # seconds: a page that was cut off for so long does not come back
LOADING = 60  # seconds: so long may a page load before it speaks to its kernel
TRIM = 3  # seconds


def fork_kernels() -> None:
    """Kernels are forks of the warm process from now on. Where none can be, each loads everything itself."""
    if CAN_FORK:
        factory = KernelProvisionerFactory.instance()
        factory.provisioners["forked"] = EntryPoint("forked", f"{__name__}:Forked", factory.GROUP_NAME)
        factory.default_provisioner_name = "forked"


class Process(multiprocessing.get_context("forkserver").Process if CAN_FORK else multiprocessing.Process):
    """A forked process, asked as Jupyter asks a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, signum: int) -> None:
        if self.is_alive():
            os.kill(self.pid, signum)


class Forked(LocalProvisioner):
    """Starts a kernel as a fork of the warm process instead of a fresh Python."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict:
        arguments = cmd[cmd.index("-f") :]
        self.process = Process(target=run_kernel, args=(arguments, kwargs["cwd"], THREADS), daemon=True)
        # In a thread: the first of them waits until the warm process has loaded everything.
        await asyncio.get_running_loop().run_in_executor(None, self.process.start)
        self.pid, self.cwd = self.process.pid, kwargs["cwd"]
        return self.connection_info


def run_kernel(arguments: list[str], folder: str, threads: int) -> None:
    """A kernel, in the forked process. It ends with the server; nothing of a visit is written down."""
    import torch
    from ipykernel.kernelapp import IPKernelApp

    threading.Thread(target=end_with_server, daemon=True).start()
    torch.set_num_threads(threads)
    os.chdir(folder)
    quiet = ["--HistoryManager.enabled=False", f"--IPKernelApp.parent_handle={os.getppid()}"]
    IPKernelApp.launch_instance([*arguments, *quiet])
    os._exit(0)  # a search that still runs is nobody's


def end_with_server() -> None:
    """Wait for the server's end; meanwhile give back what a search has freed, which the C library keeps for itself."""
    server, libc = multiprocessing.parent_process(), ctypes.CDLL(None)
    while server.is_alive():
        server.join(TRIM)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
    os._exit(1)


class Kernels(AsyncMappingKernelManager):
    """As many kernels as there are seats; one whose page has gone is ended."""

    seats = Integer(8, config=True)

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._free = asyncio.Semaphore(self.seats)
        self._pages, self._waiting = defaultdict(set), set()

    async def start_kernel(self, **kwargs: Any) -> str:
        """Raises `HTTPError` 503 where no seat becomes free."""
        try:
            await asyncio.wait_for(self._free.acquire(), PATIENCE)
        except TimeoutError:
            raise HTTPError(503, "all %d seats are taken", self.seats) from None
        try:
            kernel_id = await super().start_kernel(**kwargs)
        except BaseException:
            self._free.release()
            raise
        self._end_unless_connected(kernel_id, LOADING)
        return kernel_id

    def remove_kernel(self, kernel_id: str) -> Any:
        kernel = super().remove_kernel(kernel_id)
        if kernel is not None:
            self._pages.pop(kernel_id, None)
            self._free.release()
        return kernel

    async def shutdown_kernel(self, kernel_id: str, now: bool = False, restart: bool = False) -> None:
        """At once: nothing in it is worth a farewell, and somebody may be waiting for the seat."""
        if kernel_id in self:  # a page may have ended it already
            await super().shutdown_kernel(kernel_id, now=True, restart=restart)

    def joined(self, kernel_id: str, page: Any) -> None:
        """A page has opened its connection."""
        self._pages[kernel_id].add(page)

    def left(self, kernel_id: str, page: Any) -> None:
        """A connection is closed; unless its page comes back soon, the kernel ends."""
        self._pages[kernel_id].discard(page)
        self._end_unless_connected(kernel_id, GONE)

    def _end_unless_connected(self, kernel_id: str, seconds: float) -> None:
        async def end():
            await asyncio.sleep(seconds)
            if kernel_id in self and not self._pages[kernel_id]:
                await self.shutdown_kernel(kernel_id)

        task = asyncio.ensure_future(end())
        self._waiting.add(task)  # or nobody holds it
        task.add_done_callback(self._waiting.discard)
