"""A receiver of traces, as OpenTelemetry's exporters send them: OTLP, protobuf over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Recorded(NamedTuple):
    """A span as it was received."""

    service: str
    name: str
    span_id: str
    parent: str
    links: list[str]
    attributes: dict[str, str]
    began_ns: int
    ended_ns: int


class Receiver(ThreadingHTTPServer):
    """Takes spans as the OTLP of OpenTelemetry sends them: protobuf over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.traces: dict[str, list[Recorded]] = {}
        self.lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """Has processes send their spans here, soon."""
        url = f"http://127.0.0.1:{self.server_port}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def of(self, trace_id: str) -> list[Recorded]:
        with self.lock:
            return [*self.traces.get(trace_id, ())]

    def names(self, trace_id: str) -> list[str]:
        return sorted(span.name for span in self.of(trace_id))


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        export = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in export.resource_spans:
            service = _texts(resource.resource.attributes)["service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                links = [link.span_id.hex() for link in span.links]
                recorded = Recorded(
                    service,
                    span.name,
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    links,
                    _texts(span.attributes),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )
                with self.server.lock:
                    self.server.traces.setdefault(span.trace_id.hex(), []).append(recorded)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_: Any) -> None:
        pass


def _texts(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value or str(each.value.int_value) for each in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that takes spans until the block ends."""
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()
