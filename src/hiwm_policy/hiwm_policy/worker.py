"""One thread that computes the newest request and nothing else; older requests that nobody started are dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestWorker(Generic[T]):
    """Runs ``work`` on the newest submitted item, one at a time.

    Args:
        work: called in the thread.
        failed: called in the thread with the exception of ``work``, once; the thread then ends.
    """

    def __init__(self, work: Callable[[T], None], failed: Callable[[Exception], None], name: str = "inference") -> None:
        self._work = work
        self._failed = failed
        self._ready = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: T) -> bool:
        """Hand over an item; never blocks on the work. False where an older, unstarted item was dropped for it."""
        with self._ready:
            replaced = self._item is not None
            self._item = item
            self._ready.notify()
        return not replaced

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop after the item in work."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._closed or self._item is not None)
                if self._closed:
                    return
                item, self._item = self._item, None
            assert item is not None
            try:
                self._work(item)
            except Exception as error:  # handed to the owner, who ends the node with it
                self._failed(error)
                return
