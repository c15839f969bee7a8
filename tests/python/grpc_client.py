"""Asks a server over gRPC with a client generated from its proto, and compares with /recommend.

Usage: grpc_client.py HTTP_ADDRESS GRPC_ADDRESS, as 127.0.0.1:8080
"""

import importlib
import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from random import Random

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"


def generate(into):
    arguments = [f"--proto_path={PROTO}", f"--python_out={into}", f"--grpc_python_out={into}"]
    assert protoc.main(["protoc", *arguments, str(PROTO / "canet/v1/recommender.proto")]) == 0
    sys.path.insert(0, into)
    modules = ("canet.v1.recommender_pb2", "canet.v1.recommender_pb2_grpc")
    return [importlib.import_module(name) for name in modules]


def rest(address, body):
    request = urllib.request.Request(
        f"http://{address}/recommend", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def same(answer, expected):
    assert [item.item for item in answer.items] == [item["item"] for item in expected["items"]], (answer, expected)
    for found, item in zip(answer.items, expected["items"]):
        assert abs(found.score - item["score"]) < 1e-5, (found, item)
    assert answer.route.name == (expected["route"]["name"] or "")
    assert answer.route.reason == expected["route"]["reason"]
    assert answer.compute.flops == expected["compute"]["flops"]
    assert answer.model.version == expected["model"]["version"]


def fails(call, code, reason, field=None):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        details = {}
        for detail in rpc_status.from_call(error).details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
                message = kind()
                if detail.Unpack(message):
                    details[kind] = message
        assert details[error_details_pb2.ErrorInfo].reason == reason, details
        if field:
            assert details[error_details_pb2.BadRequest].field_violations[0].field == field, details
        return error
    raise AssertionError(f"this should have failed with {code}")


def malformed(channel, sound):
    """Broken messages over the wire: each meets a status of the table."""
    codes = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    methods = ["canet.v1.Recommender/Recommend", "inference.GRPCInferenceService/ModelInfer"]
    random = Random(5)
    refused = 0
    for number in range(1000):
        message = bytearray(sound)
        for _ in range(random.randint(1, 4)):
            message[random.randrange(len(message))] = random.randrange(256)
        try:
            channel.unary_unary("/" + methods[number % 2])(bytes(message), timeout=10)
        except grpc.RpcError as error:
            assert error.code() in codes, (error, message)
            refused += 1
    assert 500 <= refused < 1000, refused


def main(http, address):
    with tempfile.TemporaryDirectory() as into, grpc.insecure_channel(address) as channel:
        messages, services = generate(into)
        stub = services.RecommenderStub(channel)
        histories = [["101", "102"], ["103"], ["stranger"], ["140", "139", "138", "137"], []]
        expected = [rest(http, {"history": history, "k": 5}) for history in histories]
        requests = [messages.RecommendRequest(history=history, k=5) for history in histories]

        # Unary, with metadata.
        for request, answer in zip(requests, expected):
            found, call = stub.Recommend.with_call(request, timeout=10, metadata=[("x-request-id", "mine")])
            same(found, answer)
            assert ("x-request-id", "mine") in call.initial_metadata()
            assert any(key == "server-timing" for key, _ in call.initial_metadata())

        # A batch, and a stream of answers, one row of each at fault.
        broken = requests + [messages.RecommendRequest(history=["101"], k=0)]
        results = stub.RecommendBatch(messages.RecommendBatchRequest(requests=broken)).results
        for result, answer in zip(results, expected):
            same(result.recommendation, answer)
        assert (results[-1].problem.code, results[-1].problem.field) == ("invalid_request", "k"), results[-1]
        stream = list(stub.RecommendStream(messages.RecommendStreamRequest(requests=broken)))
        assert sorted(answer.index for answer in stream) == list(range(len(broken)))
        for answer in stream:
            if answer.index < len(expected):
                same(answer.result.recommendation, expected[answer.index])
            else:
                assert answer.result.problem.code == "invalid_request"

        model = stub.GetModel(messages.GetModelRequest())
        assert (model.model.name, model.items, len(model.routes)) == ("small", 40, 24), model

        # Faults, a deadline among them.
        wrong = messages.RecommendRequest(history=["101"], k=41)
        fails(lambda: stub.Recommend(wrong), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "k")
        large = messages.RecommendRequest(exclude=["x" * (1 << 20)])
        fails(lambda: stub.Recommend(large), grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
        unknown = channel.unary_unary("/canet.v1.Recommender/Fly")
        fails(lambda: unknown(b""), grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_ALLOWED")
        garbage = channel.unary_unary("/canet.v1.Recommender/Recommend")
        fails(lambda: garbage(b"\x0a\xff"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        try:
            # More than a millisecond's work on any machine: half a megabyte is read before the first row runs.
            heavy = messages.RecommendRequest(history=["101", "102"] * 50, k=40, route="full")
            stub.RecommendBatch(messages.RecommendBatchRequest(requests=[heavy] * 1024), timeout=0.001)
            raise AssertionError("the deadline was not kept")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

        malformed(channel, requests[0].SerializeToString())
        same(stub.Recommend(requests[0]), expected[0])

        # Health and reflection.
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", "canet.v1.Recommender"):
            assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
        described = ProtoReflectionDescriptorDatabase(channel)
        assert "canet.v1.Recommender" in described.get_services(), described.get_services()
        assert described.FindFileContainingSymbol("canet.v1.RecommendRequest").package == "canet.v1"

        # A watcher hears when the server drains, and its call ends.
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == serving
        print("watching", flush=True)
        sys.stdin.readline()
        assert [answer.status for answer in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]


if __name__ == "__main__":
    main(*sys.argv[1:])
