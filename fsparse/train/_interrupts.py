"""Ctrl-C between steps rather than within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM fills; a second one does what it did.

    Handlers are put back at the end. In other threads than the main one, which Python
    does not let handle signals, nothing fills it.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.signal(number, note)
        before[number] = signal.SIG_DFL if handler is None else handler
    try:
        yield caught
    finally:
        for caught_number, handler in before.items():
            signal.signal(caught_number, handler)
