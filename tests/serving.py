"""A server of a small predictor in a thread, and clients that speak to it in bytes."""

import asyncio
import contextlib
import json
import socket
import threading
import time

from fsparse.serve import Limits
from fsparse.serve._listen import listen
from fsparse.serve._server import make_server


class Doubler:
    """Predicts ``k`` multiples of an example's ``x``; remembers its batches."""

    name, max_k = "doubler", 4

    def __init__(self):
        self.batches = []
        self.has_begun, self.may_go = threading.Event(), threading.Event()
        self.may_go.set()

    def predict(self, examples):
        self.has_begun.set()
        assert self.may_go.wait(20)
        self.batches.append(list(examples))
        return [self._multiples(example) for example in examples]

    def _multiples(self, example):
        if not isinstance(example, dict) or "x" not in example:
            return ValueError("the column x is missing; give it a number.")
        if example["x"] == -1:
            raise RuntimeError("a bug")
        return [(i + 1) * example["x"] for i in range(self.max_k)]


@contextlib.contextmanager
def running(predictor, **limits):
    """The port of a server, which is stopped in the end."""
    server = make_server(predictor, Limits(**limits))
    sockets = listen("127.0.0.1", 0)
    (port,) = (each.getsockname()[1] for each in sockets)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        predictor.may_go.set()
        thread.join(20)
        assert not thread.is_alive()


def post(body, path="/predict", kind="application/json", method="POST"):
    """The bytes of a request that ends its connection."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    rest = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + rest).encode() + body


def open_socket(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def receive(client):
    """Status and JSON of an answer, when the server has closed the connection."""
    data = b""
    while part := client.recv(65536):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


def ask(port, request):
    with open_socket(port) as client:
        client.sendall(request)
        return receive(client)
