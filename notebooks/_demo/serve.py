"""Serve the inversion lab to people without Jupyter: one page, and for everybody who opens it a kernel of their own."""

import argparse
from pathlib import Path

NOTEBOOK = Path(__file__).with_name("lab.ipynb")
HOST, PORT, SEATS = "127.0.0.1", 8080, 8
# What a page may load: nothing from anywhere else, and nobody may show it inside a page of theirs.
ONLY_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'self'"


def config(chosen: argparse.Namespace):
    """What Voilà is told."""
    from traitlets.config import Config

    from kernels import Kernels, fork_kernels

    fork_kernels()
    told = Config()
    told.Demo.names = chosen.name
    told.Voila.ip, told.Voila.port, told.Voila.open_browser = chosen.host, chosen.port, False
    told.Voila.port_retries = 0  # a taken port is an error, not another address than the one that was told
    told.Voila.tornado_settings = {"headers": {"Content-Security-Policy": ONLY_HERE}}
    told.VoilaConfiguration.multi_kernel_manager_class = Kernels
    told.Kernels.seats = chosen.seats
    told.VoilaConfiguration.allow_template_override = told.VoilaConfiguration.allow_theme_override = "NO"
    told.VoilaConfiguration.theme = "light" if chosen.theme == "system" else chosen.theme
    told.VoilaConfiguration.resources = {"follows_system": chosen.theme == "system"}
    told.KernelManager.autorestart = False  # a kernel without its page's widgets is of no use
    # Encrypted where the machine can: otherwise every kernel warns that it "is running over TCP without encryption".
    told.KernelManager.transport_encryption = "auto"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the inversion lab with Voilà.")
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default: {HOST}, this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument("--seats", type=int, default=SEATS, help=f"how many may be in the lab at once ({SEATS})")
    parser.add_argument("--name", action="append", default=[], help="a further name of this server, behind a proxy")
    parser.add_argument("--theme", choices=("system", "light", "dark"), default="system")
    chosen = parser.parse_args()
    # Below: forking begins before Jupyter is loaded, and a forked process reads this file, which must cost nothing.
    from forking import warm_up

    warm_up()
    from door import Demo, is_loopback

    if not is_loopback(chosen.host):
        print(
            f"Listening on {chosen.host}: whoever reaches this machine can use the lab; there is no password.",
            flush=True,
        )
    Demo.launch_instance(argv=[str(NOTEBOOK)], config=config(chosen))


if __name__ == "__main__":
    main()
