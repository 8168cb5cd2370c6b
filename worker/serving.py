"""The model process's end of the lanes."""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from worker.pipe import Picture, Predicted, receive_pictures, send_answer

Answer = Callable[[list[Picture]], Predicted]

_NICER, _NICEST = 10, 19


def serve(lanes: Sequence[Connection], answer: Answer) -> None:
    """Until the consumer is gone. A thread for each lane: decoders and networks let go of Python's lock.

    Where processors are short, the first lane goes first.
    """
    for lane in lanes[1:]:
        threading.Thread(target=_serve_or_end_all, args=[lane, answer], daemon=True).start()
    _serve(lanes[0], answer)


def _serve(lane: Connection, answer: Answer) -> None:
    try:
        while True:
            send_answer(lane, answer(receive_pictures(lane)))
    except (EOFError, ConnectionError):
        return


def _serve_or_end_all(lane: Connection, answer: Answer) -> None:
    """An exception in any thread ends the process, as it does in the first."""
    if sys.platform == "linux":  # elsewhere priorities are those of whole processes
        niceness = min(_NICEST, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
    try:
        _serve(lane, answer)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
