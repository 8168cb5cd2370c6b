"""The least an HTTP server can do: read the body, answer. `python -m bench.bare_app` prints its URL."""

import socket

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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        print(f"http://{host}:{port}/", flush=True)
        config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
