"""The application: from requests to answers, as an ASGI callable."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from reprlib import repr as shown
from typing import Any

from fsparse.serve._batcher import Batcher, Overloaded
from fsparse.serve._finite import require_finite
from fsparse.serve._latency import Latencies
from fsparse.serve._limits import Limits
from fsparse.serve._predictor import Predictor

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_METHODS = {"/predict": "POST", "/health": "GET"}
_log = logging.getLogger("fsparse.serve")


class Refused(Exception):
    """A request that gets a status of 4xx or 5xx, and why."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


class _Gone(Exception):
    """The client has left: nobody to answer."""


class App:
    """An ASGI application around a :class:`Predictor`.

    Refused, with ``{"error": ...}``: 400 what is no JSON, or an example that the
    predictor refuses; 404 and 405 other paths and methods; 408 a body that takes too
    long; 413 one that is too large; 415 another content type; 431 a long line or long
    headers; 503, with ``Retry-After``, what comes while too much waits or takes too
    long.
    """

    def __init__(self, predictor: Predictor, limits: Limits | None = None) -> None:
        self._predictor, self._limits = predictor, limits or Limits()
        self._latencies = Latencies()
        self._started = time.monotonic()
        self._batcher: Batcher | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # websockets
            await send({"type": "websocket.close"})

    async def _live(self, receive: Receive, send: Send) -> None:
        predict, limits = self._predictor.predict, self._limits
        await receive()
        async with Batcher(
            predict, max_batch=limits.max_batch, max_waiting=limits.max_waiting
        ) as self._batcher:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            return
        except Refused as e:
            self._latencies.refuse(e.status)
            await _send(send, e.status, {"error": str(e)}, **e.headers)
        else:
            if scope["path"] == "/predict":
                self._latencies.add(time.monotonic() - began)
            await _send(send, 200, answer)

    async def _answer(self, scope: Message, receive: Receive) -> Any:
        path = scope["path"]
        self._require_short(scope)
        if path not in _METHODS:
            raise Refused(404, f"no {path}; there are {', '.join(_METHODS)}.")
        if scope["method"] != _METHODS[path]:
            wanted = _METHODS[path]
            reason = f"{path} wants {wanted}; got {scope['method']}."
            raise Refused(405, reason, allow=wanted)
        if path == "/health":
            return self._health()
        examples, k = self._parse(await self._body(scope, receive))
        found = await self._submit(examples)
        for i, best in enumerate(found):
            if isinstance(best, ValueError):
                raise Refused(400, f"examples[{i}]: {best}")
        return {"predictions": [best[:k] for best in found]}

    def _health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "model": self._predictor.name,
            "seconds": time.monotonic() - self._started,
            **self._latencies.summary(),
        }

    def _require_short(self, scope: Message) -> None:
        path = scope.get("raw_path") or scope["path"].encode()
        size = len(path) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        most = self._limits.max_header
        if size > most:
            reason = f"the path and the headers have at most {most} bytes; got {size}."
            raise Refused(431, reason)

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"application/json").split(b";")[0]
        if kind.strip().lower() != b"application/json":
            got = kind.decode("latin-1")
            raise Refused(415, f"the content type must be application/json; got {got}.")
        length = headers.get(b"content-length", b"0")
        self._require_room(int(length) if length.isdigit() else 0)
        seconds = self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._read(receive)
        except TimeoutError:
            reason = f"the body must arrive within {seconds:g} seconds."
            raise Refused(408, reason) from None

    async def _read(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            self._require_room(len(body))
            more = message.get("more_body", False)
        return bytes(body)

    def _require_room(self, size: int) -> None:
        most = self._limits.max_body
        if size > most:
            raise Refused(413, f"a body has at most {most} bytes; got {size}.")

    def _parse(self, body: bytes) -> tuple[list[Any], int]:
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as e:
            raise Refused(400, f"the body must be JSON: {e}.") from None
        if not isinstance(request, dict) or not set(request) <= {"examples", "k"}:
            raise Refused(400, 'the body must be {"examples": [...], "k": 5}.')
        examples, k = request.get("examples"), request.get("k", 1)
        self._require_count("k", k, self._predictor.max_k)
        if not isinstance(examples, list):
            raise Refused(400, "examples must be a list.")
        self._require_count("len(examples)", len(examples), self._limits.max_examples)
        try:
            require_finite(examples)
        except ValueError as e:
            raise Refused(400, str(e)) from None
        return examples, k

    def _require_count(self, name: str, value: Any, most: int) -> None:
        if type(value) is not int or not 1 <= value <= most:
            raise Refused(400, f"{name} must be from 1 to {most}; got {shown(value)}.")

    async def _submit(self, examples: list[Any]) -> list[Any]:
        assert self._batcher is not None
        seconds = self._limits.answer_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._batcher.submit(examples)
        except Overloaded as e:
            raise Refused(503, str(e), **{"retry-after": "1"}) from None
        except TimeoutError:
            reason = f"no answer within {seconds:g} seconds."
            raise Refused(503, reason, **{"retry-after": "1"}) from None
        except Exception:
            _log.exception("prediction failed")
            raise Refused(500, "the prediction failed; see the server's log.") from None


async def _send(send: Send, status: int, answer: Any, **headers: str) -> None:
    """A refused request ends its connection: its body may be under way still."""
    body = json.dumps(answer, allow_nan=False).encode()
    more = {} if status == 200 else {"connection": "close"}
    every = {"content-type": "application/json", **more, **headers}
    every["content-length"] = str(len(body))
    pairs = [(name.encode(), value.encode()) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
