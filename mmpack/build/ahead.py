"""Reading ahead in a thread: an iterator that keeps a few items ready, in order, with bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

#: Pictures of a camera kept ready: enough to bridge a slow slice, few enough for 4K frames.
DEPTH = 8


def read_ahead(source: Iterator[T], depth: int = DEPTH) -> Iterator[T]:
    """The items of `source`, made in a thread of their own, at most `depth` ahead. Errors surface where they
    would have.

    Decoders and encoders release the interpreter's lock, so one such thread per camera uses as many cores.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in source:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    threading.Thread(target=work, name="mmpack-read-ahead", daemon=True).start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(item, BaseException)
                raise item
            yield item  # pyright: ignore[reportReturnType]
    finally:
        stop.set()
