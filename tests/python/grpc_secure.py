"""Asks a server over gRPC with TLS and a key: who lacks either is refused.

Usage: grpc_secure.py PORT AUTHORITY_FILE KEY
"""

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

port, authority, key = sys.argv[1:]
target = f"localhost:{port}"


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


with grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(authority).read_bytes())) as channel:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert health.status == health_pb2.HealthCheckResponse.SERVING, health
    # Probes need no key.
    channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=10)
    # An empty message is a request of these methods.
    for method in ("canet.v1.Recommender/GetModel", "inference.GRPCInferenceService/ServerMetadata"):
        ask = channel.unary_unary("/" + method)
        for metadata, expected in [
            ([("x-api-key", key)], grpc.StatusCode.OK),
            ([("authorization", f"Bearer {key}")], grpc.StatusCode.OK),
            ([], grpc.StatusCode.UNAUTHENTICATED),
            ([("x-api-key", key + "s")], grpc.StatusCode.UNAUTHENTICATED),
        ]:
            found = code(lambda: ask(b"", metadata=metadata, timeout=10))
            assert found == expected, (method, metadata, found)

# The public authorities did not sign the server's certificate, and there is nothing without TLS.
for channel in (grpc.secure_channel(target, grpc.ssl_channel_credentials()), grpc.insecure_channel(target)):
    with channel:
        ask = channel.unary_unary("/canet.v1.Recommender/GetModel")
        found = code(lambda: ask(b"", metadata=[("x-api-key", key)], timeout=10))
        assert found == grpc.StatusCode.UNAVAILABLE, found
