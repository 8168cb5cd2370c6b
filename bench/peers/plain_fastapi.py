"""Plain FastAPI: the model runs in the server's thread pool."""

from typing import Any

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from starlette.concurrency import run_in_threadpool

from bench.peers.answering import Answering, arguments


def create_app() -> FastAPI:
    app = FastAPI()
    answer = Answering()

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return (await run_in_threadpool(answer, [await request.body()]))[0]

    @app.post("/form")
    async def form(file: UploadFile) -> dict[str, Any]:
        return (await run_in_threadpool(answer, [await file.read()]))[0]

    return app


def main() -> None:
    chosen = arguments()
    uvicorn.run(
        "bench.peers.plain_fastapi:create_app",
        factory=True,
        port=chosen.port,
        workers=chosen.workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
