"""Asks a server by tritonclient, over HTTP and gRPC, and compares with /recommend.

Usage: inference_client.py HTTP_ADDRESS GRPC_ADDRESS, as 127.0.0.1:8080
"""

import json
import sys
import urllib.request

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

HISTORIES = [["101", "102"], [103], ["stranger"], ["140", "139", "138", "137"]]
LOWEST = np.finfo(np.float32).min


def rest(address, body):
    request = urllib.request.Request(
        f"http://{address}/recommend", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def same(result, expected, k):
    """Row by row; a row that has fewer than k items is filled up."""
    items, scores, route = result.as_numpy("items"), result.as_numpy("scores"), result.as_numpy("route")
    assert items.shape == scores.shape == (len(expected), k), (items.shape, scores.shape)
    assert route.shape == (len(expected),) and scores.dtype == np.float32
    for row, answer in enumerate(expected):
        found = [text(item) for item in items[row]]
        count = len(answer["items"])
        assert found == [item["item"] for item in answer["items"]] + [""] * (k - count), (found, answer)
        assert np.allclose(scores[row][:count], [item["score"] for item in answer["items"]], atol=1e-5)
        assert (scores[row][count:] == LOWEST).all()
        assert text(route[row]) == (answer["route"]["name"] or "cold_start")


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def fails(call, *words):
    try:
        call()
    except InferenceServerException as error:
        for word in words:
            assert word in str(error), error
        return
    raise AssertionError("this should have failed")


def inputs(client, k=None, binary=None, dense=None):
    options = {} if binary is None else {"binary_data": binary}
    if dense is None:
        values = np.array([json.dumps(history) for history in HISTORIES], dtype=np.object_)
        history = client.InferInput("history", [len(values)], "BYTES")
    else:
        values = np.array(dense, dtype=np.int64)
        history = client.InferInput("history", list(values.shape), "INT64")
    history.set_data_from_numpy(values, **options)
    if k is None:
        return [history]
    count = client.InferInput("k", [1], "INT64")
    count.set_data_from_numpy(np.array([k], dtype=np.int64), **options)
    return [history, count]


def check_metadata(server, model, name):
    assert server["name"] == "canet", server
    assert (model["name"], model["versions"], model["platform"]) == (name, ["1"], "canet"), model
    tensors = [(tensor["name"], tensor["datatype"]) for tensor in model["inputs"] + model["outputs"]]
    inputs = [("history", "BYTES"), ("k", "INT64"), ("history_start", "INT64"), ("user", "BYTES")]
    expected = inputs + [("items", "BYTES"), ("scores", "FP32"), ("route", "BYTES")]
    assert tensors == expected, tensors


def check(client, address, http, modes, **metadata):
    """Everything that both transports share; `modes` are the ways in which values are sent and asked for."""
    name = "small"
    with client.InferenceServerClient(address) as server:
        assert server.is_server_live() and server.is_server_ready()
        assert server.is_model_ready(name) and server.is_model_ready(name, "1")
        check_metadata(server.get_server_metadata(**metadata), server.get_model_metadata(name, **metadata), name)
        ten = [rest(http, {"history": history}) for history in HISTORIES]
        all_of_them = [rest(http, {"history": history, "k": 40}) for history in HISTORIES]
        for sent, asked in modes:
            outputs = None
            if asked is not None:
                outputs = [client.InferRequestedOutput(output, **asked) for output in ("items", "scores", "route")]
            result = server.infer(name, inputs(client, **sent), outputs=outputs, request_id="mine")
            same(result, ten, 10)
            response = result.get_response(**metadata)
            assert (response["id"], response["model_version"]) == ("mine", "1"), response
            same(server.infer(name, inputs(client, k=40, **sent), model_version="1", outputs=outputs), all_of_them, 40)
        # Dense ids: item i of this model is called 100 + i.
        dense = server.infer(name, inputs(client, k=3, dense=[[0, 0, 1], [39, 40, 0], [0, 0, 0]]))
        rows = [["101"], ["139", "140"], []]
        same(dense, [rest(http, {"history": history, "k": 3}) for history in rows], 3)
        # A subset, in another order.
        asked = [client.InferRequestedOutput("route"), client.InferRequestedOutput("items")]
        part = server.infer(name, inputs(client), outputs=asked)
        assert [output["name"] for output in part.get_response(**metadata)["outputs"]] == ["route", "items"]
        assert part.as_numpy("scores") is None
        # What else is asked of every row.
        full = server.infer(name, inputs(client), parameters={"route": "full", "exclude_seen": False})
        more = {"route": "full", "exclude_seen": False}
        same(full, [rest(http, {"history": history, **more}) for history in HISTORIES], 10)

        fails(lambda: server.infer("other", inputs(client)), "other")
        fails(lambda: server.infer(name, inputs(client), model_version="2"), "version")
        fails(lambda: server.infer(name, inputs(client, k=41)), "`k` is 41")
        fails(lambda: server.infer(name, inputs(client, k=-1)), "`k` is -1")
        fails(lambda: server.infer(name, inputs(client, dense=[[41]])), "dense id 41")
        fails(lambda: server.infer(name, inputs(client)[:0]), "history")
        fails(lambda: server.infer(name, inputs(client), parameters={"speed": 3}), "speed")
        fails(lambda: server.infer(name, inputs(client), outputs=[client.InferRequestedOutput("what")]), "what")
        fails(lambda: server.get_model_metadata("other"), "other")
        assert not server.is_model_ready(name, "9")


def main(http, grpc):
    binary = [({"binary": sent}, {"binary_data": asked}) for sent in (True, False) for asked in (True, False)]
    check(tritonclient.http, http, http, [({}, None), *binary])
    check(tritonclient.grpc, grpc, http, [({}, None), ({}, {})], as_json=True)
    with tritonclient.grpc.InferenceServerClient(grpc) as server:
        # More than a millisecond's work on any machine, of 700 KB; client or server may be the first to say so.
        many = inputs(tritonclient.grpc, k=40, dense=[[1, 2, 3] * 30] * 1024)
        fails(lambda: server.infer("small", many, client_timeout=0.001), "DEADLINE_EXCEEDED")


if __name__ == "__main__":
    main(*sys.argv[1:])
