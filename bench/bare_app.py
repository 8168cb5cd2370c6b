"""The least an HTTP server can do: read the body, answer. `python -m bench.bare_app --port 8123`."""

import argparse

import uvicorn
from starlette.types import Message, Receive, Scope, Send

_BODY = b"{}"
_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}
_END: Message = {"type": "http.response.body", "body": _BODY}


async def app(_: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_END)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(app, port=port, lifespan="off", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
