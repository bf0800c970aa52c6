"""An OTLP/HTTP receiver on a real socket, which decodes the protobuf it is sent."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS: dict[str, Any] = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector:
    """Takes OTLP over HTTP: `spans` and `points` hold what has come, `headers` those of the last request."""

    def __init__(self):
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(KINDS[self.path].FromString(body), dict(self.headers))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.spans, self.points, self.headers, self.resource = [], {}, {}, {}

    def take(self, message, headers):
        self.headers = headers
        for group in getattr(message, "resource_spans", ()):
            self.resource = plain(group.resource.attributes)
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        for group in getattr(message, "resource_metrics", ()):
            for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
                self.points[metric.name] = list(
                    (metric.histogram if metric.HasField("histogram") else metric.sum).data_points
                )

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def plain(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
