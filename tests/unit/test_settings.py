from pathlib import Path

import pytest
import yaml

from mlaas.settings import (
    DEFAULTS,
    ROOT,
    SettingsError,
    as_environment,
    load,
    set_by_kubernetes,
    without_secrets,
)


def test_the_later_wins_file_environment_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("gateway: {port: 1, host: from-file, max_in_flight: 7}")
    environment = {"MLAAS_GATEWAY__PORT": "2", "MLAAS_GATEWAY__HOST": "from-environment"}
    gateway = load(file, environment, [("gateway.port", 3)]).gateway
    assert (gateway.port, gateway.host, gateway.max_in_flight) == (3, "from-environment", 7)
    assert gateway.reply_timeout_ms == yaml.safe_load(DEFAULTS.read_text())["gateway"]["reply_timeout_ms"]


def test_the_environment_names_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("gateway: {port: 4242}")
    assert load(None, {"MLAAS_CONFIG": str(file)}).gateway.port == 4242


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {"MLAAS_GATEWAY__PROT": "1"},
            r"MLAAS_GATEWAY__PROT is no setting; did you mean MLAAS_GATEWAY__PORT\?",
        ),
        ({"MLAAS_GATEWY__PORT": "1"}, r"did you mean MLAAS_GATEWAY__PORT\?"),
        ({"MLAAS_GATEWAY_PORT": "1"}, r"did you mean MLAAS_GATEWAY__PORT\?"),
        ({"MLAAS_GATEWAY": "1"}, "gateway is a section"),
        ({"MLAAS_GATEWAY__PORT": "many"}, r"^MLAAS_GATEWAY__PORT: gateway\.port: Expected `int`"),
        ({"MLAAS_GATEWAY__PORT": "70000"}, r"gateway\.port: Expected `int` <= 65535, got 70000$"),
        ({"MLAAS_TOPICS__REPLIES": "no spaces"}, r"topics\.replies"),
        ({"MLAAS_TRAIN__NETWORK__WIDTHS": "[16, many]"}, r"train\.network\.widths\[1\]: Expected `int`"),
        ({"MLAAS_TRAIN__NETWORK__WIDTHS": "[16"}, r"WIDTHS: '\[16' is not a list"),
        (
            {"MLAAS_TRAIN__NETWORK__DEPTHS": "[16]"},
            r"DEPTHS is no setting; did you mean MLAAS_TRAIN__NETWORK__WIDTHS",
        ),
        ({"MLAAS_MODEL__DEFAULT": "../etc"}, r"model\.default"),
        ({"MLAAS_MODEL__NAMES": "['../etc']"}, r"model\.names"),
        ({"MLAAS_JOBS__STORE": "mysql://host/db"}, r"jobs\.store"),
        ({"MLAAS_JOBS__KEEP_MS": "1000"}, r"jobs: keep_ms is below deadline_ms"),
        (
            {"MLAAS_TOPICS__JOBS_RETENTION_MS": "1000"},
            r"topics\.jobs_retention_ms is below jobs\.deadline_ms",
        ),
        ({"MLAAS_CONFIG": "/no/such/file"}, "/no/such/file: No such file"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_would_be_right(
    environment: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        load(None, environment)


def test_lists_and_what_is_nested_can_be_set_by_environment_and_command_line() -> None:
    environment = {"MLAAS_TRAIN__NETWORK__WIDTHS": "[16, 32]", "MLAAS_TRAIN__TEACHER__NAME": ""}
    overrides = [("model.names", "[a, b]"), ("train.augmentation.flip", "false")]
    settings = load(None, environment, overrides)
    assert settings.train.network.widths == (16, 32)
    assert settings.train.teacher.name == ""
    assert settings.model.names == ("a", "b")
    assert settings.train.augmentation.flip is False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"gateway: [", r"mine\.yaml:1: not valid YAML: "),
        (b"gateway:\n  port: 1\n host: a\n", r"mine\.yaml:3: not valid YAML: "),
        (b"gateway:\n\tport: 1\n", r"mine\.yaml:2: not valid YAML: .*\\t"),
        (b"gateway:\n  host: caf\xe9\n", r"mine\.yaml:2: not text in UTF-8"),
        (b"- gateway\n", r"mine\.yaml: expected a mapping"),
        (b"log: {level: info}\ngateway:\n  port: many\n", r"mine\.yaml:3: gateway\.port: Expected `int`"),
        (
            b"gateway:\n  prot: 1\n",
            r"mine\.yaml:2: unknown setting gateway\.prot; did you mean gateway\.port\?",
        ),
        (b"model:\n  names:\n  - fine\n  - ../etc\n", r"mine\.yaml:2: model\.names\[1\]: "),
        (b"jobs:\n  keep_ms: 1000\n", r"mine\.yaml:1: jobs: keep_ms is below"),
        (b"gateway:\nlog: {}\n", r"mine\.yaml:1: gateway is a section"),
    ],
)
def test_an_error_in_a_file_names_its_line(tmp_path: Path, text: bytes, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(text)
    with pytest.raises(SettingsError, match=says):
        load(file, {})


def test_a_file_of_comments_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# gateway: {port: 1}\n")
    assert load(file, {}) == load(None, {})


def test_what_kubernetes_sets_for_a_service_is_ignored() -> None:
    environment = {
        "MLAAS_SERVICE_HOST": "10.0.0.1",
        "MLAAS_SERVICE_PORT": "8000",
        "MLAAS_SERVICE_PORT_HTTP": "8000",
        "MLAAS_PORT": "tcp://10.0.0.1:8000",
        "MLAAS_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "MLAAS_PORT_8000_TCP_ADDR": "10.0.0.1",
        "MLAAS_GATEWAY_PORT": "tcp://10.0.0.2:8000",
        "MLAAS_GATEWAY_PORT_8000_TCP_PROTO": "tcp",
        "MLAAS_GATEWAY__PORT": "8123",
    }
    assert load(None, environment).gateway.port == 8123
    assert set_by_kubernetes(environment) == [name for name in environment if name != "MLAAS_GATEWAY__PORT"]
    with pytest.raises(SettingsError, match="MLAAS_PORT is no setting"):
        load(None, {"MLAAS_PORT": "8000"})


def test_children_read_back_the_same_settings() -> None:
    overrides = [
        ("gateway.port", 8123),
        ("broker.url", "kafka://a:1?b=c"),
        ("worker.processes", 3),
        ("model.names", ["a", "b"]),
        ("jobs.store", "postgresql://h:1/d"),
        ("train.network.widths", "[8, 16]"),
        ("train.teacher.name", ""),
    ]
    settings = load(None, {}, overrides)
    assert load(None, as_environment(settings)) == settings


def test_folders_are_relative_to_the_project() -> None:
    settings = load(None, {})
    assert settings.jobs.store == f"sqlite:///{ROOT}/.cache/jobs.sqlite3"
    assert load(None, {"MLAAS_JOBS__STORE": "sqlite:////a/b"}).jobs.store == "sqlite:////a/b"
    assert settings.model.weights_dir == str(ROOT / "weights")
    for folder in (settings.train.data_dir, settings.train.checkpoint_dir, settings.train.reports_dir):
        assert Path(folder).parent == ROOT
    assert load(None, {"MLAAS_MODEL__WEIGHTS_DIR": "/elsewhere"}).model.weights_dir == "/elsewhere"


@pytest.mark.parametrize("url", ["redis://:secret@h:6379/0", "jobs.sqlite3", "mysql://h/d"])
def test_another_kind_of_store_is_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, {"MLAAS_JOBS__STORE": url})
    said = str(refused.value)
    assert said.startswith(
        "MLAAS_JOBS__STORE: jobs: jobs.store must begin with sqlite:/// (gateways on one machine) or postgresql://"
    )
    assert "\n" not in said
    assert "secret" not in said


def test_every_setting_has_a_reason_beside_it() -> None:
    for line in DEFAULTS.read_text().splitlines():
        name, colon, rest = line.partition(":")
        if colon and rest.strip() and not rest.strip().startswith("#") and not name.strip().startswith("#"):
            assert "#" in rest or name.strip() in SELF_EXPLANATORY, line


SELF_EXPLANATORY = {"name", "requests", "replies", "dead_letters", "port", "level"}


@pytest.mark.parametrize(
    "secret",
    [
        "kafka://ann:hush@h:1",
        "kafka://ann:hush@hush@h:1",
        "kafka://ann:hush/hush@h:1",
        "kafka://h:1?sasl.password=hush&x=1",
        "kafka://h?ssl.key.password=hush",
        "api_token=hush",
    ],
)
def test_secrets_are_masked(secret: str) -> None:
    assert "hush" not in without_secrets(secret)
    assert "***" in without_secrets(secret)
