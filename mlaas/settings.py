"""The settings: configs/config.yaml, then a file, the environment and the command line; and logging."""

import difflib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import yaml
from msgspec.structs import replace

from gateway import GatewaySettings, JobSettings
from messaging import BrokerSettings, TopicSettings
from mlaas.errors import UserError
from model import ModelSettings, TrainSettings
from worker import WorkerSettings

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = ROOT / "configs" / "config.yaml"
PREFIX = "MLAAS_"
FILE_VARIABLE = "MLAAS_CONFIG"
_FREE = (("topics", "queues"),)  # mappings whose keys are names, not settings
NO_SETTINGS = (FILE_VARIABLE, "MLAAS_URL", "MLAAS_API_KEY")  # the client reads the last two

# Kubernetes sets these in every pod for each Service of the namespace, such as one named mlaas-gateway.
_SERVICE_PORT = re.compile(r"(MLAAS(?:_\w+?)?)_PORT=(?:tcp|udp|sctp)://", re.ASCII)
_OF_SERVICE = r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"

_SECRET = re.compile(r"((?:password|secret|token|key)[\w.]*=)[^&\s]+", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(://[^:@/\s]*:)\S+(@)")

_NUMBER = re.compile(r"-?[\d.]{1,30}", re.ASCII)

_MOST_CHARACTERS = 4_000  # of a line
_PLAIN = re.compile(r"[^\s\"=]+")

Tree = dict[str, Any]
Where = tuple[str, ...]


class SettingsError(UserError):
    """A setting is unknown or invalid. The message names it and says what is valid."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=os.EX_CONFIG)


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]
    access_lines_per_s: Annotated[int, msgspec.Meta(ge=0)]


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
    tree = _read(DEFAULTS).tree
    for name, default in (unless or {}).items():
        tree = _merged(tree, Source(_nested(name.split("."), default), "defaults"))
    chosen = file or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    sources = [
        *([] if chosen is None else [_read(chosen)]),
        *_from_environment(environment, tree),
        *_from_command_line(overrides),
    ]
    for source in sources:
        tree = _merged(tree, source)
    return _absolute(_consistent(_converted(tree, sources)))


def as_environment(settings: Settings) -> dict[str, str]:
    """The environment variables from which load() restores these settings in a child process."""
    return {
        variable(path): value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for path, value in _nodes(msgspec.to_builtins(settings), ())
        if path in _FREE or not isinstance(value, dict)
    }


def without_secrets(text: str) -> str:
    """The text with passwords, secrets, tokens and keys masked."""
    return _CREDENTIALS.sub(r"\1***\2", _SECRET.sub(r"\1***", text))


def set_by_kubernetes(environment: Mapping[str, str]) -> list[str]:
    """The variables that begin with MLAAS_ because a Service does, and are no settings."""
    found = (_SERVICE_PORT.match(f"{name}={value}") for name, value in environment.items())
    services = {match[1] for match in found if match}
    return [name for name in environment if any(re.fullmatch(its + _OF_SERVICE, name) for its in services)]


class Source(NamedTuple):
    """Settings that have been set in one place: a file, an environment variable, or the command line.

    lines: where each setting is in the file, by path.
    """

    tree: Tree
    name: str
    lines: Mapping[Where, int] = {}

    def at(self, path: Where) -> str:
        """The place where a setting is set, for an error message."""
        line = next((its for end in range(len(path), 0, -1) if (its := self.lines.get(path[:end]))), None)
        return f"{self.name}:{line}" if line else self.name

    def get(self, path: Where) -> Any:
        """What is set at this path; None for nothing."""
        found: Any = self.tree
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found


def _read(file: Path) -> Source:
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        tree = None if root is None else loader.construct_document(root)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{file}:{line}: not text in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise SettingsError(f"{file}:{line}: not valid YAML: {said}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not valid YAML: {error}") from error
    if tree is None:  # nothing but comments
        return Source({}, str(file))
    if not isinstance(tree, dict):
        raise SettingsError(f"{file}: expected a mapping of settings")
    return Source(tree, str(file), dict(_lines(root, ())))


def _lines(node: yaml.Node | None, path: Where) -> Iterator[tuple[Where, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*path, str(key.value))
            yield where, key.start_mark.line + 1
            yield from _lines(value, where)


def _from_environment(environment: Mapping[str, str], known: Tree) -> Iterator[Source]:
    no_settings = {*NO_SETTINGS, *set_by_kubernetes(environment)}
    variables = {variable(path): path for path, _ in _nodes(known, ())}
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in no_settings:
            if name not in variables:
                raise SettingsError(f"{name} is no setting{_nearest_variable(name, variables)}")
            yield Source(_nested(variables[name], _value(text, name)), name)


def _nearest_variable(name: str, known: Iterable[str]) -> str:
    """Of a single underscore where there are two, it says so."""
    alike = {its.replace("__", "_"): its for its in known if "__" in its}
    found = difflib.get_close_matches(name.replace("__", "_"), alike, n=1, cutoff=0.7)
    return f"; did you mean {alike[found[0]]}?" if found else ""


def variable(path: Iterable[str]) -> str:
    """The environment variable of the setting at this path."""
    return PREFIX + "__".join(path).upper()


def _nodes(tree: Mapping[str, Any], path: Where) -> Iterator[tuple[Where, Any]]:
    """The sections and settings, each with its path."""
    for name, value in tree.items():
        where = (*path, name)
        yield where, value
        if isinstance(value, dict) and where not in _FREE:
            yield from _nodes(value, where)


def _from_command_line(overrides: Iterable[tuple[str, Any]]) -> list[Source]:
    return [Source(_nested(path.split("."), _value(its, path)), "command line") for path, its in overrides]


def _value(value: Any, source: str) -> Any:
    """Parses a list or a mapping, written as in YAML. Other values are converted to their types later."""
    if not (isinstance(value, str) and value.startswith(("[", "{"))):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        form = "list; write one as [a, b]" if value.startswith("[") else "mapping; write one as {a: b}"
        raise SettingsError(f"{source}: {value!r} is not a {form}") from error


def _nested(path: Sequence[str], value: Any) -> Tree:
    for name in reversed(path):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def _merged(base: Tree, source: Source, path: Where = ()) -> Tree:
    """The settings of base, and what the source sets below path instead. Raises SettingsError."""
    merged = dict(base)
    for name, value in source.get(path).items():
        where = (*path, str(name))
        said = f"{source.at(where)}: "
        if name not in base:
            raise SettingsError(f"{said}unknown setting {'.'.join(where)}{_nearest(str(name), base, path)}")
        if isinstance(base[name], dict):
            if not isinstance(value, dict):
                raise SettingsError(f"{said}{'.'.join(where)} is a section, not a value")
            merged[name] = base[name] | value if where in _FREE else _merged(base[name], source, where)
        else:
            merged[name] = value
    return merged


def _nearest(name: str, known: Iterable[str], path: tuple[str, ...]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {'.'.join((*path, found[0]))}?" if found else ""


def _converted(tree: Tree, sources: Sequence[Source]) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        where = where.rstrip("`")
        path = tuple(where.partition("[")[0].split("."))
        places = [source.at(path) for source in sources if source.get(path) is not None]
        given = [str(source.get(path)) for source in sources if source.get(path) is not None][-1:]
        got = f", got {given[0]}" if given and _NUMBER.fullmatch(given[0]) else ""
        raise SettingsError(": ".join([*places[-1:], *filter(None, [where]), what + got])) from error


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


class _Lines(logging.Formatter):
    """What both forms have in common. A line's `fields`, if it has any, are names and values for machines."""

    def message_of(self, record: logging.LogRecord) -> str:
        """Bounded, because a client or a broker may have chosen parts of it."""
        message = record.getMessage()
        left_out = len(message) - _MOST_CHARACTERS
        return message if left_out <= 0 else f"{message[:_MOST_CHARACTERS]}… and {left_out} more characters"

    def fields_of(self, record: logging.LogRecord) -> dict[str, Any]:
        return getattr(record, "fields", {})


class _TextLines(_Lines):
    """Writes each message on one line: text from outside, such as a reply_to, cannot forge a second one.

    Fields follow as name=value, without those that are empty, in quotes if necessary (logfmt).
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = (f" {name}={_quoted(str(its))}" for name, its in self.fields_of(record).items() if its != "")
        text = self.message_of(record) + "".join(fields)
        record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        return super().formatMessage(record)


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _JsonLines(_Lines):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": self.message_of(record),
            **self.fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(settings: LogSettings, process: str) -> None:
    """Logs to standard error. process names this process, as several may share a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines(process)
        if settings.format == "json"
        else _TextLines(f"%(asctime)s %(levelname)-7s {process}: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # uvicorn reports each start and stop, which the gateway already does.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    if settings.format == "json":
        sys.excepthook = _log_unhandled
        threading.excepthook = lambda of: _log_unhandled(of.exc_type, of.exc_value, of.exc_traceback)


def _log_unhandled(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """In one line, instead of a traceback that a reader of JSON would take for many."""
    if error is not None and issubclass(kind, Exception):
        logging.getLogger("mlaas").critical("not handled: %s", error, exc_info=(kind, error, trace))
