#!/usr/bin/env python3
"""Serves one route of a model as a Python team would: FastAPI and uvicorn around PyTorch, ONNX Runtime or OpenVINO.

    python_server.py --model models/ml-100k [--route full] [--runtime onnxruntime] [--threads 1] [--workers 1] [--port 8000]

`POST /recommend {"history": ["50", "181"]}` answers {"items": [...]}: enough to be put under the same load as canet. Each
worker is a process that ranks one request at a time.
"""

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from checkpoint import Checkpoint
from network import padded
from runtimes import PEERS


START_SECONDS = 300


class Request(BaseModel):
    history: list[str]


class Answer(BaseModel):
    items: list[str]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--route", default="full")
    parser.add_argument("--runtime", default="onnxruntime", choices=PEERS)
    parser.add_argument("--threads", default=1, type=int, help="of the runtime, in each worker")
    parser.add_argument("--workers", default=1, type=int)
    parser.add_argument("--port", default=8000, type=int)
    return parser.parse_args()


def application():
    """The application of one worker. A worker has the arguments of the process that started it."""
    options = arguments()
    checkpoint = Checkpoint.read(options.model)
    rank = PEERS[options.runtime](checkpoint, options.route, options.threads)
    names = {dense: name for name, dense in checkpoint.items.items()}
    app = FastAPI()

    # Inline: a pool of threads would only queue for the same cores.
    @app.post("/recommend")
    async def recommend(request: Request) -> Answer:
        known = [checkpoint.items[item] for item in request.history if item in checkpoint.items]
        (items,) = rank(padded([checkpoint.read_part(known) or [0]])).tolist()
        return Answer(items=[names[item] for item in items])

    return app


def main():
    options = arguments()
    uvicorn.run(
        "python_server:application",
        factory=True,
        workers=options.workers,
        host="127.0.0.1",
        port=options.port,
        log_level="info",
        access_log=False,
        # A worker that imports PyTorch on a busy machine does not answer for a while, and must not be replaced.
        timeout_worker_healthcheck=START_SECONDS,
    )


if __name__ == "__main__":
    main()
