"""Bounds on the line and the headers of a request, which uvicorn leaves open."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fsparse.serve._limits import Limits


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol of uvicorn, which gives up on headers that are slow or long."""

    class Bounded(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _size = 0  # bytes since the request began; of its headers, while _timer is set

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_are_complete()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._size += len(data)
            if self._timer and self._size > limits.max_header:
                self._refuse(b"431 Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._size = 0
            self._expect_headers()

        def on_headers_complete(self) -> None:
            self._headers_are_complete()
            super().on_headers_complete()

        def _expect_headers(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(
                    limits.header_seconds, self._refuse, b"408 Request Timeout"
                )

        def _headers_are_complete(self) -> None:
            if self._timer:
                self._timer.cancel()
            self._timer = None

        def _refuse(self, status: bytes) -> None:
            self._headers_are_complete()
            if not self.transport.is_closing():
                head = b"HTTP/1.1 " + status
                rest = b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                self.transport.write(head + rest)
                self.transport.close()

    return Bounded
