"""Sockets that listen."""

import contextlib
import socket

_BACKLOG = 2048  # connections that wait to be accepted


def listen(host: str, port: int) -> list[socket.socket]:
    """One for each address of the host; port 0 takes free ones.

    Raises:
      OSError: if the host is not known, or the port is taken or not allowed.
    """
    with contextlib.ExitStack() as opened:
        try:
            sockets = [
                opened.enter_context(_listen(family, address))
                for family, address in _addresses(host, port)
            ]
        except OSError as e:
            raise OSError(
                f"serve: it must be possible to listen on {host}:{port}; got: "
                f"{e.strerror}. Pass another port; 0 takes a free one."
            ) from e
        opened.pop_all()
    return sockets


def require_free(host: str, port: int) -> None:
    """Raises OSError, as :func:`listen`, before work is done for nothing."""
    for each in listen(host, port):
        each.close()


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, type=kind, flags=flags)
    return [*dict.fromkeys((each[0], (str(each[4][0]), port)) for each in found)]


def _listen(family: int, address: tuple[str, int]) -> socket.socket:
    """Says which protocol: else asyncio leaves TCP_NODELAY off, at 40 ms an answer."""
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # IPv4 has a socket of its own
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened
