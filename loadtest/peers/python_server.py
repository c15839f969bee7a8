#!/usr/bin/env python3
"""Serves one route of a model as a Python team would: FastAPI, uvicorn with one worker, PyTorch or ONNX Runtime.

    python_server.py --model models/ml-100k [--route full] [--runtime eager|onnxruntime] [--threads 1] [--port 8000]

`POST /recommend {"history": ["50", "181"]}` answers {"items": [...]}: enough to be put under the same load as canet.
"""

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from checkpoint import Checkpoint
from network import padded
from runtimes import PEERS


class Request(BaseModel):
    history: list[str]


class Answer(BaseModel):
    items: list[str]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--route", default="full")
    parser.add_argument("--runtime", default="eager", choices=PEERS)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--port", default=8000, type=int)
    options = parser.parse_args()

    checkpoint = Checkpoint.read(options.model)
    rank = PEERS[options.runtime](checkpoint, options.route, options.threads)
    names = {dense: name for name, dense in checkpoint.items.items()}
    app = FastAPI()

    # Inline: a pool of threads would only queue for the same cores.
    @app.post("/recommend")
    async def recommend(request: Request) -> Answer:
        known = [checkpoint.items[item] for item in request.history if item in checkpoint.items]
        (items,) = rank(padded([known[-checkpoint.config["max_len"] :] or [0]])).tolist()
        return Answer(items=[names[item] for item in items])

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="info", access_log=False)


if __name__ == "__main__":
    main()
