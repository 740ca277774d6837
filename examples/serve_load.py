"""Requests to a server at a steady rate, and how long they take.

Example:
  python examples/serve_load.py rows.csv --requests-per-second 500 --bad 16

Asks about a row of the file every 1 / rate seconds; latencies count from the time
planned. --bad adds clients that send what is malformed, too large, slow and the like.
"""

import argparse
import asyncio
import contextlib
import csv
import json
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """One request at a time; joins the idle ones again when it is answered."""

    def __init__(self, idle: "asyncio.Queue[Connection]", found: dict[str, list]):
        """Latencies go into ``found``, by status."""
        self.idle, self.found, self.planned, self.answer = idle, found, 0.0, b""

    def connection_made(self, transport: Any) -> None:
        """It can be written to."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Ends the request, if this is the rest of its answer."""
        self.answer += data
        head, end, body = self.answer.lower().partition(b"\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length or 0):
            if b"connection: close" in head:
                self.transport.close()
            self.end(head[9:12].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        """The request under way gets no answer."""
        self.end("closed")

    def end(self, status: str) -> None:
        """The request under way, if there is one, ends with this status."""
        if self.planned:
            seconds = perf_counter() - self.planned
            self.found.setdefault(status, []).append(seconds)
            self.planned = 0.0
            self.idle.put_nowait(self)


def post(body: bytes, path: str) -> bytes:
    """The bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def bad_requests(path: str) -> dict[str, bytes]:
    """By name; those that are cut short are of clients that are slow."""
    return {
        "no JSON": post(b"{", path),
        "too large": post(b" " * 2**21, path),
        "slow body": post(b"{}", path)[:-1],
        "wrong path": post(b"{}", "/nothing"),
        "NaN": post(b'{"examples": [{"x": NaN}]}', path),
        "long path": post(b"{}", path + "?" * 30_000),
        "slow headers": post(b"{}", path)[:20],
        "no HTTP": b"\x16\x03\x01\x02\r\n\r\n",
    }


async def misbehave(at: Any, name: str, request: bytes, counts: Counter) -> None:
    """The same bad request again and again; counts what comes back."""
    while True:
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(*at)
            with contextlib.closing(writer):
                writer.write(request)
                counts[f"{name}: {(await reader.read(64))[9:12].decode()}"] += 1
        await asyncio.sleep(0.1)


async def load(at: Any, requests: Any, rate: float, size: int, bad: Any):
    """Latencies by status, the seconds it took, and counts of bad requests."""
    idle, found, counts = asyncio.Queue(), {}, Counter()
    loop, make = asyncio.get_running_loop(), lambda: Connection(idle, found)
    for _ in range(size):
        idle.put_nowait((await loop.create_connection(make, *at))[1])
    others = asyncio.gather(*(misbehave(at, *each, counts) for each in bad))
    began = perf_counter()
    for i, request in enumerate(requests):
        planned = began + i / rate
        await asyncio.sleep(max(planned - perf_counter(), 0))
        connection = await idle.get()
        if connection.transport.is_closing():
            _, connection = await loop.create_connection(make, *at)
        connection.answer, connection.planned = b"", planned
        connection.transport.write(request)
    while idle.qsize() < size and perf_counter() < planned + 5:
        await asyncio.sleep(0.001)
    others.cancel()
    while idle.qsize():
        idle.get_nowait().transport.close()
    return found, perf_counter() - began, dict(sorted(counts.items()))


def report(found: dict[str, list], seconds: float, bad: dict[str, int]):
    """Of the good requests the rate, milliseconds, and counts by status."""
    good = sorted(found.get("200", []))
    at = lambda q: round(1e3 * good[int(q * (len(good) - 1))], 2) if good else None  # noqa: E731
    statuses = {status: len(each) for status, each in found.items()}
    figures = {f"p{q}_ms": at(q / 100) for q in (50, 90, 99)} | {"max_ms": at(1)}
    rate = round(len(good) / seconds, 1)
    return {"requests_per_second": rate, **figures, "statuses": statuses, "bad": bad}


def main(argv: list[str] | None = None) -> None:
    """Reads the rows, sends them, prints the figures."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("data", type=Path, help="rows to ask about, a CSV file; the first 10,000")
    add("--url", type=urlsplit, default="http://127.0.0.1:8000/predict")
    add("--requests-per-second", dest="rate", type=float, default=1000)
    add("--connections", type=int, default=32)
    add("--seconds", type=float, default=10)
    add("--bad", type=int, default=0, help="clients that misbehave")
    add("--json", type=Path)
    asked = parser.parse_args(argv)
    at, path = (asked.url.hostname, asked.url.port), asked.url.path
    with asked.data.open(encoding="utf-8", newline="") as file:
        rows = [*islice(csv.DictReader(file), 10_000)]
    good = [post(json.dumps({"examples": [row]}).encode(), path) for row in rows]
    requests = islice(cycle(good), round(asked.rate * asked.seconds))
    bad = islice(cycle(bad_requests(path).items()), asked.bad)
    run = load(at, requests, asked.rate, asked.connections, bad)
    figures = report(*asyncio.run(run))
    print(*(f"{name}: {value}" for name, value in figures.items()), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
