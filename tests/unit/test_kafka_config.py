import logging
import socket
import time

import pytest
from confluent_kafka import Producer

from messaging import connect, kafka_config
from messaging.broker import BrokerError, TopicMissing
from messaging.kafka import split_address
from messaging.kafka_config import REPEAT_AFTER_S, ClientLog

FORM = "%s [%s] %s"


def test_the_query_overrides_any_property() -> None:
    servers, given = kafka_config.parse_url("kafka://a:1,b:2?linger.ms=7&security.protocol=SASL_SSL")
    made = kafka_config.producer(servers, given)
    assert made["bootstrap.servers"] == "a:1,b:2"
    assert made["linger.ms"] == "7"
    assert made["security.protocol"] == "SASL_SSL"
    assert made["acks"] == "all"


def test_user_and_password_in_the_url_are_sasl_credentials() -> None:
    _, given = kafka_config.parse_url("kafka://ann:secret@host:9092")
    assert given == {"sasl.username": "ann", "sasl.password": "secret"}


def test_they_are_percent_encoded() -> None:
    servers, given = kafka_config.parse_url("kafka://ann%40home:a%2Fb%3Fc%25@host:9092")
    assert servers == "host:9092"
    assert given == {"sasl.username": "ann@home", "sasl.password": "a/b?c%"}


def test_a_slash_in_a_password_is_not_taken_for_a_host() -> None:
    with pytest.raises(ValueError, match="%2F"):
        kafka_config.parse_url("kafka://ann:a/b@host:9092")


@pytest.mark.parametrize("url", ["kafka://", "http://host", "kafka://host?novalue"])
def test_what_is_no_kafka_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        kafka_config.parse_url(url)


def test_the_consumer_protocol_leaves_out_what_the_broker_decides() -> None:
    role = kafka_config.member("g", "worker-1")
    made = kafka_config.consumer("a:1", {"group.protocol": "consumer"}, role)
    assert not {"session.timeout.ms", "group.instance.id"} & made.keys()
    assert "partition.assignment.strategy" not in made
    assert made["max.poll.interval.ms"] == 300_000


def test_a_property_that_does_not_exist_is_named_in_the_error() -> None:
    with pytest.raises(BrokerError, match=r"no\.such\.property"):
        connect("kafka://127.0.0.1:1?no.such.property=1")


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="kafka://host:9092"):
        connect("amqp://host")


@pytest.mark.parametrize(
    ("address", "parts"), [("t", ("t", -1)), ("t/0", ("t", 0)), ("a.b-c_d/11", ("a.b-c_d", 11))]
)
def test_an_address_is_a_topic_and_perhaps_a_partition(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["t/", "t/x", "t/-1", "t/1/2", "t/²", "t/9999999999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(TopicMissing):
        split_address(address)


def test_a_repeated_log_line_comes_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = ClientLog(clock=lambda: now)
    with caplog.at_level(logging.DEBUG, "mlaas.kafka"):
        for _ in range(3):
            log.log(
                logging.ERROR, FORM, "FAIL", "mlaas#producer-1", "[thrd:kafka:9092/1]: kafka:9092/1: refused"
            )
        log.log(logging.ERROR, FORM, "CONFWARN", "mlaas#producer-1", "a producer's property")
        now = REPEAT_AFTER_S
        log.log(logging.ERROR, FORM, "FAIL", "mlaas#producer-1", "[thrd:app]: refused again")
    assert [record.getMessage() for record in caplog.records] == [
        "librdkafka: kafka:9092/1: refused",
        "librdkafka: refused again (and 2 more FAIL since the last one)",
    ]


def test_a_real_client_says_why_it_does_not_connect(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as nobody:  # bound, but nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        client = Producer({"bootstrap.servers": address, "log_level": 6}, logger=ClientLog())
        end = time.monotonic() + 20
        while not caplog.records and time.monotonic() < end:
            client.poll(0.05)
    said = caplog.records[0].getMessage()
    assert said.startswith(f"librdkafka: {address}"), said
    assert "Connection refused" in said


def test_a_share_is_not_for_the_client_library() -> None:
    servers, given = kafka_config.parse_url("kafka://a:1?linger.ms=7&mlaas.share=2/3")
    assert kafka_config.fixed_share(given) == (2, 3)
    for made in (
        kafka_config.producer(servers, given),
        kafka_config.consumer(servers, given, kafka_config.INBOX),
    ):
        assert kafka_config.SHARE not in made
        assert made["linger.ms"] == "7"


@pytest.mark.parametrize("share", ["", "1", "0/3", "4/3", "-1/3", "1/x", "1/2/3"])
def test_what_is_no_share_is_refused(share: str) -> None:
    with pytest.raises(ValueError, match="2/3"):
        kafka_config.fixed_share({kafka_config.SHARE: share})


def test_a_bell_is_not_for_the_client_library() -> None:
    servers, given = kafka_config.parse_url("kafka://a:1?mlaas.bell=4711")
    assert kafka_config.port_of_bell(given) == 4711
    assert kafka_config.port_of_bell({}) is None
    assert kafka_config.BELL not in kafka_config.producer(servers, given)
    assert kafka_config.BELL not in kafka_config.consumer(servers, given, kafka_config.INBOX)


@pytest.mark.parametrize("port", ["", "0", "-1", "65536", "x"])
def test_what_is_no_port_is_refused_for_a_bell(port: str) -> None:
    with pytest.raises(ValueError, match=r"mlaas\.bell must be a port"):
        kafka_config.port_of_bell({kafka_config.BELL: port})
