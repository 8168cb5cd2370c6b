"""Sends what the Python client cannot: a header whose name is not UTF-8. Other clients can."""

import ctypes
from collections.abc import Iterable
from pathlib import Path

import confluent_kafka

# librdkafka's rd_kafka_vtype_t, flags and types, as in its rdkafka.h.
_END, _TOPIC, _VALUE, _MSGFLAGS, _HEADER = 0, 1, 4, 7, 9
_COPY = 2
_PRODUCER = 0
_NO_ERROR = 0


def send(servers: str, topic: str, header: bytes, values: Iterable[bytes]) -> None:
    """Records with one header each."""
    package = Path(confluent_kafka.__file__).parent
    (file,) = package.parent.glob("confluent_kafka.libs/librdkafka*")
    library = ctypes.CDLL(str(file))
    for name in ("rd_kafka_conf_new", "rd_kafka_new"):
        getattr(library, name).restype = ctypes.c_void_p
    reason = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", servers.encode(), reason, ctypes.c_size_t(512))
    producer = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, conf, reason, ctypes.c_size_t(512)))
    assert producer.value, reason.value
    for value in values:
        failed = library.rd_kafka_producev(
            producer,
            *(_TOPIC, topic.encode()),
            *(_VALUE, value, ctypes.c_size_t(len(value))),
            *(_HEADER, header, b"x", ctypes.c_ssize_t(1)),
            *(_MSGFLAGS, _COPY),
            _END,
        )
        assert failed == _NO_ERROR
    assert library.rd_kafka_flush(producer, 10_000) == _NO_ERROR
    library.rd_kafka_destroy(producer)
