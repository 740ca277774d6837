"""Batches of whatever waits, computed in one thread beside the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple


class Overloaded(RuntimeError):
    """More examples wait than may."""


class _Waiting(NamedTuple):
    examples: Sequence[Any]
    answer: "asyncio.Future[list[Any]]"


class Batcher:
    """Calls ``predict`` on the examples of all requests that wait.

    Nobody is kept waiting for a batch to fill: the first request is computed at once,
    and those that arrive meanwhile are the next batch.

    Args:
      predict: a list of examples -> a list of as many results; runs in a thread, one
        call at a time. If it raises, so does each :meth:`submit` of that batch.
      max_batch: the most examples of a call; a request with more is a call of its own.
      max_waiting: the most examples that wait.

    Example:
      >>> async def main():
      ...     async with Batcher(lambda xs: [2 * x for x in xs]) as batcher:
      ...         answers = [batcher.submit([1]), batcher.submit([2, 3])]
      ...         return await asyncio.gather(*answers)
      >>> asyncio.run(main())
      [[2], [4, 6]]
    """

    def __init__(
        self,
        predict: Callable[[list[Any]], list[Any]],
        *,
        max_batch: int = 64,
        max_waiting: int = 4096,
    ) -> None:
        self._predict = predict
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._num_waiting = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fsparse-predict")

    async def __aenter__(self) -> "Batcher":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for request in self._waiting:
            request.answer.cancel()
        self._thread.shutdown(wait=True)

    async def submit(self, examples: Sequence[Any]) -> list[Any]:
        """The results of the examples.

        Raises:
          Overloaded: if more than ``max_waiting`` examples would wait.
        """
        if self._num_waiting + len(examples) > self._max_waiting:
            raise Overloaded(f"{self._num_waiting} examples wait already.")
        request = _Waiting(examples, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._num_waiting += len(examples)
        self._arrived.set()
        return await request.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            requests = self._take()
            examples = [x for request in requests for x in request.examples]
            if not examples:
                continue
            call = loop.run_in_executor(self._thread, self._predict, examples)
            _answer(requests, *await asyncio.gather(call, return_exceptions=True))

    def _take(self) -> list[_Waiting]:
        """The requests of the next batch, without those whose clients have left."""
        taken: list[_Waiting] = []
        size = 0
        while self._waiting:
            count = len(self._waiting[0].examples)
            if taken and size + count > self._max_batch:
                break
            request = self._waiting.popleft()
            self._num_waiting -= count
            if not request.answer.done():
                taken.append(request)
                size += count
        if not self._waiting:
            self._arrived.clear()
        return taken


def _answer(requests: list[_Waiting], results: list[Any] | BaseException) -> None:
    at = 0
    for request in requests:
        end = at + len(request.examples)
        if request.answer.done():
            pass
        elif isinstance(results, BaseException):
            request.answer.set_exception(results)
        else:
            request.answer.set_result(results[at:end])
        at = end
