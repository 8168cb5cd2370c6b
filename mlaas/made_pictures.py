"""Pictures to ask with where no file is named."""

from gateway.answer import grey_png

_SIZE = 28


def made(count: int) -> list[bytes]:
    """So many PNG files of 28 x 28 grey pixels, all different; of nothing in particular."""
    places = range(_SIZE * _SIZE)
    return [grey_png(bytes(place * step % 251 for place in places), _SIZE) for step in range(1, count + 1)]
