"""No process of the test run reaches another machine: only unix sockets and the loopback are left to connect to.

Python imports a module of this name at its start; `tests/conftest.py` puts its folder in front of every child's path.
"""

import ipaddress
import socket


def is_near(address: object) -> bool:
    """Is an address on this machine?"""
    if not isinstance(address, tuple):
        return True  # a path
    host = str(address[0]).partition("%")[0]
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback or host in ("0.0.0.0", "::")
    except ValueError:
        return False


def refuse(function):
    """The function of a socket, for addresses of this machine."""

    def guarded(self, *arguments):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_near(arguments[-1]):
            raise OSError(f"the test run reaches no other machine, {arguments[-1]!r} was asked for")
        return function(self, *arguments)

    return guarded


def install() -> None:
    """Guard what a connection, or a message without one, starts with."""
    for name in ("connect", "connect_ex", "sendto"):
        if not hasattr(getattr(socket.socket, name), "__wrapped_by_tests__"):
            function = refuse(getattr(socket.socket, name))
            function.__wrapped_by_tests__ = True
            setattr(socket.socket, name, function)


install()
