"""Serve the inversion lab to people without Jupyter: one page, and for everybody who opens it a kernel of their own."""

import argparse
import ipaddress
from pathlib import Path

from traitlets.config import Config
from voila.app import Voila

NOTEBOOK = Path(__file__).with_name("lab.ipynb")
HOST, PORT = "127.0.0.1", 8080
# Voilà's page asks a CDN for icons that the lab does not use: the browser is told to ask nobody but this server.
ONLY_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'self'"


def config(host: str, port: int, theme: str) -> Config:
    """What Voilà is told."""
    told = Config()
    told.Voila.ip, told.Voila.port, told.Voila.open_browser = host, port, False
    told.Voila.port_retries = 0  # a taken port is an error, not another address than the one that was told
    told.Voila.tornado_settings = {"headers": {"Content-Security-Policy": ONLY_HERE}}
    # Two kernels wait with everything loaded; each visit takes one of them for itself alone.
    told.VoilaConfiguration.preheat_kernel = True
    told.VoilaConfiguration.default_pool_size = 2
    # An address that asks for another theme or template would find no kernel waiting.
    told.VoilaConfiguration.allow_template_override = told.VoilaConfiguration.allow_theme_override = "NO"
    told.VoilaConfiguration.theme = theme
    told.VoilaKernelManager.fill_delay = 5  # seconds: the page that has just been opened loads first
    # A closed page ends its kernel. Where the browser could not say so, an hour without a word ends it.
    told.MappingKernelManager.cull_idle_timeout = 3600
    told.MappingKernelManager.cull_interval = 300
    # Encrypted where the machine can: otherwise every kernel warns that it "is running over TCP without encryption".
    told.KernelManager.transport_encryption = "auto"
    return told


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the inversion lab with Voilà.")
    parser.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen on (default: {HOST}, this machine alone)",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    args = parser.parse_args()
    if not is_loopback(args.host):
        print(
            f"Listening on {args.host}: whoever reaches this machine can use the lab; there is no password.",
            flush=True,
        )
    Voila.launch_instance(argv=[str(NOTEBOOK)], config=config(args.host, args.port, args.theme))


if __name__ == "__main__":
    main()
