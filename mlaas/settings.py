"""The settings: configs/config.yaml, then a file, the environment and the command line; and logging."""

import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec.structs import replace

from gateway.settings import GatewaySettings, JobSettings
from messaging.settings import BrokerSettings, TopicSettings
from mlaas.errors import UserError
from model.settings import ModelSettings, TrainSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = ROOT / "configs" / "config.yaml"
PREFIX = "MLAAS_"
FILE_VARIABLE = "MLAAS_CONFIG"
NO_SETTINGS = (FILE_VARIABLE, "MLAAS_URL", "MLAAS_API_KEY")  # the client reads the last two

_SECRET = re.compile(r"((?:password|secret|token|key)[\w.]*=)[^&\s]+", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(://[^:@/\s]*:)\S+(@)")

Tree = dict[str, Any]


class SettingsError(UserError):
    """A setting is unknown or invalid. The message names it and says what is valid."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=os.EX_CONFIG)


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    broker: BrokerSettings
    topics: TopicSettings
    gateway: GatewaySettings
    jobs: JobSettings
    worker: WorkerSettings
    model: ModelSettings
    train: TrainSettings
    log: LogSettings


def load(
    file: Path | None,
    environment: Mapping[str, str],
    overrides: Iterable[tuple[str, Any]] = (),
    unless: Mapping[str, Any] | None = None,
) -> Settings:
    """Loads the settings, with relative paths resolved against the project's root. Raises SettingsError.

    file defaults to the one that MLAAS_CONFIG names. overrides are dotted paths and values, such as
    ("gateway.port", 8123). unless has defaults, by dotted path, that replace those of configs/config.yaml.
    """
    tree = _read(DEFAULTS)
    for name, default in (unless or {}).items():
        tree = _merged(tree, _nested(name.split("."), default), "defaults", ())
    chosen = file or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    if chosen is not None:
        tree = _merged(tree, _read(chosen), str(chosen), ())
    for path, value, source in [*_from_environment(environment), *_from_command_line(overrides)]:
        tree = _merged(tree, _nested(path, value), source, ())
    return _absolute(_consistent(_converted(tree)))


def as_environment(settings: Settings) -> dict[str, str]:
    """The environment variables from which load() restores these settings in a child process."""
    variables: dict[str, str] = {}

    def add(path: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add((*path, name), inner)
        else:
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            variables[PREFIX + "__".join(path).upper()] = text

    add((), msgspec.to_builtins(settings))
    return variables


def without_secrets(text: str) -> str:
    """The text with passwords, secrets, tokens and keys masked."""
    return _CREDENTIALS.sub(r"\1***\2", _SECRET.sub(r"\1***", text))


def _read(file: Path) -> Tree:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{file}: expected a mapping of settings")
    return tree


def _from_environment(environment: Mapping[str, str]) -> list[tuple[list[str], Any, str]]:
    return [
        (name.removeprefix(PREFIX).lower().split("__"), _value(text, name), name)
        for name, text in sorted(environment.items())
        if name.startswith(PREFIX) and name not in NO_SETTINGS
    ]


def _from_command_line(overrides: Iterable[tuple[str, Any]]) -> list[tuple[list[str], Any, str]]:
    return [(path.split("."), _value(value, path), "command line") for path, value in overrides]


def _value(value: Any, source: str) -> Any:
    """Parses a list, which is written as in YAML. Other values are converted to their types later."""
    if not (isinstance(value, str) and value.startswith("[")):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: {value!r} is not a list; write one as [a, b]") from error


def _nested(path: list[str], value: Any) -> Tree:
    for name in reversed(path):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def _merged(base: Tree, over: Tree, source: str, path: tuple[str, ...]) -> Tree:
    merged = dict(base)
    for name, value in over.items():
        where = (*path, str(name))
        if name not in base:
            raise SettingsError(
                f"{source}: unknown setting {'.'.join(where)}{_nearest(str(name), base, path)}"
            )
        if isinstance(base[name], dict):
            if not isinstance(value, dict):
                raise SettingsError(f"{source}: {'.'.join(where)} is a section, not a value")
            merged[name] = _merged(base[name], value, source, where)
        else:
            merged[name] = value
    return merged


def _nearest(name: str, known: Iterable[str], path: tuple[str, ...]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {'.'.join((*path, found[0]))}?" if found else ""


def _converted(tree: Tree) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise SettingsError(f"{where.rstrip('`')}: {what}" if where else what) from error


def _consistent(settings: Settings) -> Settings:
    if settings.topics.jobs_retention_ms < settings.jobs.deadline_ms:
        raise SettingsError(
            "topics.jobs_retention_ms is below jobs.deadline_ms: raise it, or the broker deletes waiting jobs"
        )
    return settings


def _absolute(settings: Settings) -> Settings:
    model = replace(settings.model, weights_dir=str(ROOT / settings.model.weights_dir))
    train = replace(
        settings.train,
        data_dir=str(ROOT / settings.train.data_dir),
        checkpoint_dir=str(ROOT / settings.train.checkpoint_dir),
        reports_dir=str(ROOT / settings.train.reports_dir),
    )
    gateway = settings.gateway
    if gateway.api_keys_file:
        gateway = replace(gateway, api_keys_file=str(ROOT / gateway.api_keys_file))
    return replace(settings, gateway=gateway, model=model, train=train, jobs=_absolute_store(settings.jobs))


def _absolute_store(jobs: JobSettings) -> JobSettings:
    scheme, _, path = jobs.store.partition(":///")
    return replace(jobs, store=f"sqlite:///{ROOT / path}") if scheme == "sqlite" else jobs


class _TextLines(logging.Formatter):
    """Writes each message on one line: text from outside, such as a reply_to, cannot forge a second one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(settings: LogSettings, process: str) -> None:
    """Logs to standard error. process names this process, as several may share a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines()
        if settings.format == "json"
        else _TextLines(f"%(asctime)s %(levelname)-7s {process}: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # uvicorn reports each start and stop, which the gateway already does.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
