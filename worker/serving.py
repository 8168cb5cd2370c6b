"""The model process's end of the lanes."""

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from worker.pipe import Picture, Predicted, receive_pictures, send_answer

Answer = Callable[[list[Picture]], Predicted]


def serve(lanes: Sequence[Connection], answer: Answer) -> None:
    """Until the consumer is gone. A thread for each lane: decoders and networks let go of Python's lock."""
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
    try:
        _serve(lane, answer)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
