"""The load generator with what only the bench wants: `python -m bench.load URL samples/*.png`.

It is to run in a process of its own.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from mlaas.load.bodies import BODIES
from mlaas.load.exchange import exchanges
from mlaas.load.generator import load, loop_factory


def main() -> None:
    parser = argparse.ArgumentParser(description="Send pictures over and over; print the result as JSON.")
    parser.add_argument("url")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, help="end after so many requests")
    parser.add_argument("--rate", type=float, help="requests a second, however slow the answers are")
    parser.add_argument("--body", choices=BODIES, default="raw", help="how the picture is sent")
    parser.add_argument("--any-answer", action="store_true", help="accept every 200, whatever its body")
    chosen = parser.parse_args()
    pictures = [path.read_bytes() for path in chosen.pictures]
    given = exchanges(chosen.url, pictures, body=chosen.body, proof=not chosen.any_answer)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        result = runner.run(
            load(
                chosen.url,
                given,
                clients=chosen.clients,
                seconds=chosen.seconds,
                count=chosen.count,
                rate_per_s=chosen.rate,
            )
        )
    if not result.answers:
        sys.exit(f"{chosen.url} answered nothing: {result.errors}")
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
