"""The endpoint: answers, batches, and what it refuses, over real connections."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("httptools", reason="needs the extra serve")

from serving import Doubler, ask, open_socket, post, receive, running

from fsparse.serve import Batcher, Limits, Overloaded, serve
from fsparse.serve._listen import listen


def examples(*values, **more):
    return post({"examples": [{"x": x} for x in values], **more})


@pytest.fixture(scope="module")
def port():
    with running(
        Doubler(),
        max_body=1000,
        max_header=4000,
        max_examples=3,
        body_seconds=0.3,
        header_seconds=0.3,
    ) as port:
        yield port


def test_predictions_are_those_of_each_example(port):
    assert ask(port, examples(1, 2, k=2)) == (200, {"predictions": [[1, 2], [2, 4]]})


def test_one_prediction_where_k_is_left_out(port):
    assert ask(port, examples(3)) == (200, {"predictions": [[3]]})


def test_a_connection_serves_many_requests(port):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(client):
        for x in range(3):
            client.request("POST", "/predict", json.dumps({"examples": [{"x": x}]}))
            answer = client.getresponse()
            assert answer.status == 200
            assert json.load(answer) == {"predictions": [[x]]}


def test_health(port):
    ask(port, examples(1))
    ask(port, post(b"{"))
    status, health = ask(port, post(b"", "/health", method="GET"))
    assert status == 200
    assert health["status"] == "ok"
    assert health["model"] == "doubler"
    assert health["answered"] >= 1
    assert health["refused"]["400"] >= 1
    assert 0 < health["p50_seconds"] <= health["p99_seconds"]


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (post(b"{"), 400, "the body must be JSON"),
        (post(b"\xff\xfe"), 400, "the body must be JSON"),
        (post(b"[" * 900), 400, "the body must be JSON"),
        (post([]), 400, 'the body must be {"examples": [...], "k": 5}.'),
        (post({"example": []}), 400, 'the body must be {"examples"'),
        (post({"k": 1}), 400, "examples must be a list."),
        (post({"examples": []}), 400, "len(examples) must be from 1 to 3; got 0."),
        (examples(1, 2, 3, 4), 400, "len(examples) must be from 1 to 3; got 4."),
        (examples(1, k=5), 400, "k must be from 1 to 4; got 5."),
        (examples(1, k=True), 400, "k must be from 1 to 4; got True."),
        (examples(1, k="2"), 400, "k must be from 1 to 4; got '2'."),
        (
            post({"examples": [{"x": 1}, {"y": 1}]}),
            400,
            "examples[1]: the column x is missing; give it a number.",
        ),
        (post(b'{"examples": [{"x": NaN}]}'), 400, "examples[0]: the column 'x' must"),
        (post(b'{"examples": [{"x": 1}, {"x": [[-Infinity]]}]}'), 400, "examples[1]"),
        (post(b'{"examples": [{"x": {"y": 1e999}}]}'), 400, "examples[0]: the column"),
        (post(b'{"examples": [' + b"[" * 400), 400, "the body must be JSON"),
        (post(b"{}", "/predict?" + "x" * 4000), 431, "the path and the headers have"),
        (post(b"{}", "/" + "x" * 4000), 431, "the path and the headers have at most"),
        (post(b"{}", kind="x" * 4000), 431, "the path and the headers have at most"),
        (post(b"{}", "/nothing"), 404, "no /nothing; there are /predict, /health."),
        (post(b"{}", method="GET"), 405, "/predict wants POST; got GET."),
        (post(b"{}", "/health"), 405, "/health wants GET; got POST."),
        (post(b" " * 1001), 413, "a body has at most 1000 bytes; got 1001."),
        (post(b"{}", kind="text/csv"), 415, "the content type must be app"),
    ],
)
def test_refused(port, request_bytes, status, reason):
    found, answer = ask(port, request_bytes)
    assert found == status
    assert answer["error"].startswith(reason)


def test_a_large_body_without_a_length_is_refused(port):
    head = b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, _ = ask(port, head + b"400\r\n" + b" " * 1024 + b"\r\n")
    assert status == 413


def test_a_slow_body_is_refused(port):
    with open_socket(port) as client:
        client.sendall(examples(1)[:-3])
        status, answer = receive(client)
    assert status == 408
    assert answer["error"] == "the body must arrive within 0.3 seconds."


@pytest.mark.parametrize("begin", [b"", b"POST /predict HTTP/1.1\r\nHost: "])
def test_slow_headers_are_refused(port, begin):
    with open_socket(port) as client:
        client.sendall(begin)
        assert receive(client) == (408, None)


def test_slow_headers_of_a_second_request_are_refused(port):
    with open_socket(port) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        while not client.recv(65536).endswith(b"}"):
            pass
        client.sendall(b"POST ")
        assert receive(client) == (408, None)


def test_long_headers_are_refused(port):
    with open_socket(port) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nX: " + b"y" * 5000)
        assert receive(client) == (431, None)


def test_what_is_no_http_is_refused(port):
    with open_socket(port) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400")


def test_clients_that_stall_harm_nobody():
    with running(Doubler(), body_seconds=20, header_seconds=20) as port:
        stalled = [open_socket(port) for _ in range(50)]
        for client in stalled[:25]:
            client.sendall(examples(1)[:-3])
        assert ask(port, examples(1))[0] == 200
        for client in stalled:
            client.close()
        assert ask(port, examples(2)) == (200, {"predictions": [[2]]})


def test_more_connections_than_allowed():
    with running(Doubler(), max_connections=3) as port:
        held = [open_socket(port) for _ in range(3)]
        deadline = time.monotonic() + 10
        while b"503" not in _first_line(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert b"503" in _first_line(port)
        for client in held:
            client.close()


def _first_line(port):
    with open_socket(port) as client:
        client.sendall(examples(1))
        return client.recv(65536).split(b"\r\n")[0]


def test_a_bug_of_the_predictor_is_a_500_and_no_end(port):
    assert ask(port, examples(-1))[0] == 500
    assert ask(port, examples(1))[0] == 200


def test_what_waits_forms_a_batch():
    predictor = Doubler()
    predictor.may_go.clear()
    with running(predictor, max_batch=4) as port, ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, port, examples(x)) for x in range(8)]
        time.sleep(0.5)
        predictor.may_go.set()
        found = [answer.result() for answer in answers]
    assert found == [(200, {"predictions": [[x]]}) for x in range(8)]
    assert all(len(batch) <= 4 for batch in predictor.batches)
    assert len(predictor.batches) < 8


def test_too_much_that_waits_is_refused():
    predictor = Doubler()
    predictor.may_go.clear()
    with (
        running(predictor, max_batch=1, max_waiting=2) as port,
        ThreadPoolExecutor(8) as threads,
    ):
        first = threads.submit(ask, port, examples(0))
        assert predictor.has_begun.wait(10)
        answers = [threads.submit(ask, port, examples(x)) for x in range(1, 8)]
        while sum(a.done() for a in answers) < 5:
            time.sleep(0.01)
        predictor.may_go.set()
        statuses = sorted(answer.result()[0] for answer in [first, *answers])
    assert statuses == [200] * 3 + [503] * 5


def test_an_answer_that_takes_too_long_is_a_503():
    predictor = Doubler()
    predictor.may_go.clear()
    with running(predictor, answer_seconds=0.2) as port:
        status, answer = ask(port, examples(1))
        predictor.may_go.set()
    assert status == 503
    assert answer["error"] == "no answer within 0.2 seconds."


def test_requests_under_way_are_answered_when_the_server_stops():
    predictor = Doubler()
    predictor.may_go.clear()
    with ThreadPoolExecutor(1) as threads:
        with running(predictor) as port:
            answer = threads.submit(ask, port, examples(1))
            time.sleep(0.2)
            threading.Timer(0.3, predictor.may_go.set).start()
        assert answer.result() == (200, {"predictions": [[1]]})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_that_is_taken_is_told_in_one_line(host, port, capfd):
    with pytest.raises(OSError, match=f"{host}:{port}; got: Address already in use"):
        serve(Doubler(), host=host, port=port)
    assert capfd.readouterr() == ("", "")


def test_answers_do_not_wait_for_more_to_send():
    async def nodelay():
        found = asyncio.get_running_loop().create_future()

        def accepted(_, writer):
            client = writer.get_extra_info("socket")
            found.set_result(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        (listening,) = listen("127.0.0.1", 0)
        async with await asyncio.start_server(accepted, sock=listening):
            with open_socket(listening.getsockname()[1]):
                return await found

    assert asyncio.run(nodelay())


def test_a_host_that_is_not_known():
    with pytest.raises(OSError, match=r"nowhere\.invalid:0; got:"):
        serve(Doubler(), host="nowhere.invalid", port=0)


# ---- the batcher by itself ----------------------------------------------------------


def test_a_batch_that_fails_fails_its_requests_alone():
    def predict(xs):
        if 0 in xs:
            raise ZeroDivisionError
        return [1 / x for x in xs]

    async def main():
        async with Batcher(predict, max_batch=1) as batcher:
            calls = [batcher.submit([x]) for x in (0, 2)]
            return await asyncio.gather(*calls, return_exceptions=True)

    failed, answered = asyncio.run(main())
    assert isinstance(failed, ZeroDivisionError)
    assert answered == [0.5]


def test_a_request_that_was_given_up_is_not_computed():
    seen, may_go = [], threading.Event()

    def predict(xs):
        may_go.wait(10)
        seen.extend(xs)
        return xs

    async def main():
        async with Batcher(predict, max_batch=1) as batcher:
            first = asyncio.create_task(batcher.submit([1]))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(batcher.submit([2]))
            await asyncio.sleep(0)
            second.cancel()
            may_go.set()
            third = await batcher.submit([3])
            return await first, third

    assert asyncio.run(main()) == ([1], [3])
    assert seen == [1, 3]


def test_the_room_of_those_who_wait_is_given_back():
    async def main():
        async with Batcher(lambda xs: xs, max_waiting=2) as batcher:
            with pytest.raises(Overloaded):
                await batcher.submit([1, 2, 3])
            return [await batcher.submit([i, i]) for i in range(5)]

    assert asyncio.run(main()) == [[i, i] for i in range(5)]


def test_limits_are_positive():
    with pytest.raises(ValueError, match=r"max_body must be positive; got 0"):
        Limits(max_body=0)
