"""An OpenTelemetry collector of one test: prints its port, then every span that it is sent as a JSON line."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            of_resource = attributes(resource.resource)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    line = MessageToDict(span) | {"attributes": attributes(span), "resource": of_resource}
                    line |= {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex()}
                    line |= {"parentSpanId": span.parent_span_id.hex()}
                    print(json.dumps(line), flush=True)
        return trace_service_pb2.ExportTraceServiceResponse()


def attributes(of):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


server = grpc.server(ThreadPoolExecutor(1))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(None)
