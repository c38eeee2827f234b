"""Typed settings: built-in defaults < config file < environment < command line.

One place for every name, default and explanation; the README's table and ``config/local.toml`` are tested against
it. Secrets are not settings: they come from the environment only (see `signing`).
"""

import dataclasses
import math
import os
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from spectrogram_predictor.errors import ConfigError

ENVIRONMENT_PREFIX = "SPECTROGRAM_PREDICTOR_"


_MAX_PORT = 65535


def _option(default: Any, help: str, *, minimum: float | None = None, maximum: float = math.inf) -> Any:  # noqa: A002
    return field(default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum})


@dataclass(frozen=True)
class ServerSettings:
    """``[server]``: where it listens."""

    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0 for every interface")
    api_port: int = _option(8443, "port of the API; 0 takes a free one", minimum=0, maximum=_MAX_PORT)
    upload_port: int = _option(4443, "port of the uploads; 0 takes a free one", minimum=0, maximum=_MAX_PORT)
    certs: str = _option("certs", "folder with server.crt and server.key; renewals are picked up")
    max_connections: int = _option(4096, "connections that may be open at the same time, on each port", minimum=1)
    max_connections_per_client: int = _option(
        256, "the same from one address (an IPv6 network of 64 bits); 0 for no limit", minimum=0
    )
    max_body_bytes: int = _option(64 * 2**20, "largest signed JSON body", minimum=1)
    requests_per_s: float = _option(2000.0, "requests taken a second, of all clients; 0 for no limit", minimum=0)
    client_requests_per_s: float = _option(
        500.0, "the same for one address; behind a proxy, all clients have the proxy's", minimum=0
    )
    drain_timeout_s: float = _option(30.0, "how long SIGTERM waits for requests under way", minimum=0)


@dataclass(frozen=True)
class StorageSettings:
    """``[storage]``: where models live."""

    backend: str = _option("local", "entry point of group spectrogram_predictor.backends")
    url: str = _option("var/storage", "where it keeps its objects; for local, a folder")
    options: Mapping[str, Any] = field(
        default_factory=lambda: types.MappingProxyType({}),
        metadata={"help": "passed to the backend as they are", "minimum": None, "maximum": math.inf},
    )


@dataclass(frozen=True)
class PromotionSettings:
    """``[promotion]``: the periodic sweep."""

    interval_s: float = _option(10.0, "time between sweeps", minimum=0.1)
    incoming_ttl_s: float = _option(
        86400.0, "an upload that has not moved, a song that no golden names: removed after so long", minimum=1
    )
    temp_grace_s: float = _option(
        60.0, "how long an unregistered file that was put into temp/ by hand stays", minimum=0
    )


@dataclass(frozen=True)
class UploadSettings:
    """``[uploads]``: limits of what is being received."""

    max_bytes: int = _option(16 * 2**30, "largest model file", minimum=1)
    max_concurrent: int = _option(32, "uploads received at the same time", minimum=1)
    max_concurrent_per_client: int = _option(
        8, "the same from one address (an IPv6 network of 64 bits); 0 for no limit", minimum=0
    )
    max_unregistered_bytes: int = _option(
        64 * 2**30, "of files that nobody has registered, while they arrive and until they are swept", minimum=1
    )
    stall_timeout_s: float = _option(60.0, "a request body that sends nothing for so long is cut", minimum=0.1)
    min_bytes_per_s: int = _option(1024, "a request body slower on average is cut; 0 for no limit", minimum=0)


@dataclass(frozen=True)
class PredictionSettings:
    """``[prediction]``: the executor and its workers."""

    executor: str = _option("process", "entry point of group spectrogram_predictor.executors")
    workers: int = _option(0, "worker processes; 0 for one per processor", minimum=0)
    threads: int = _option(1, "TensorFlow threads in each worker", minimum=1)
    queue: int = _option(64, "predictions that may wait or be computed; more are answered 429", minimum=1)
    timeout_s: float = _option(60.0, "a prediction that takes longer is answered 503", minimum=0.1)
    cached_models: int = _option(4, "models kept loaded in each worker", minimum=1)
    cached_answers: int = _option(
        0,
        "latest answers kept for when the same is asked again; to know them takes a SHA-256 of every song",
        minimum=0,
    )
    worker_memory_bytes: int = _option(
        2 * 2**30, "a worker that has grown to more is replaced once another is ready", minimum=2**29
    )
    memory_limit_bytes: int = _option(
        0, "private memory that no worker gets more of; 0 for half of the machine's", minimum=0
    )


@dataclass(frozen=True)
class Settings:
    """All settings, one attribute a section."""

    server: ServerSettings = field(default_factory=ServerSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    promotion: PromotionSettings = field(default_factory=PromotionSettings)
    uploads: UploadSettings = field(default_factory=UploadSettings)
    prediction: PredictionSettings = field(default_factory=PredictionSettings)


@dataclass(frozen=True)
class Option:
    """One key of the config file, as documentation shows it."""

    section: str
    name: str
    type: type[Any]
    default: Any
    help: str
    minimum: float | None
    maximum: float

    @property
    def key(self) -> str:
        """Return ``section.name``."""
        return f"{self.section}.{self.name}"

    @property
    def environment(self) -> str:
        """Return the environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}__{self.name}".upper()


def options() -> Iterator[Option]:
    """Yield every key there is."""
    for section in dataclasses.fields(Settings):
        cls = _section_class(section.name)
        hints = get_type_hints(cls)
        for item in dataclasses.fields(cls):
            default = {} if item.name == "options" else item.default
            kind = dict if item.name == "options" else hints[item.name]
            yield Option(section.name, item.name, kind, default, **item.metadata)


def load(
    path: Path | str | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read the settings from all their sources.

    Parameters
    ----------
    path : path, optional
        A TOML file; without it, the defaults.
    overrides : sequence of str
        ``section.key=value``, as ``--set`` takes them; they win.
    environ : mapping
        Where ``SPECTROGRAM_PREDICTOR_<SECTION>__<KEY>`` is looked up.

    Raises
    ------
    ConfigError
        The file cannot be read; a key is unknown, has the wrong type or an impossible value.
    """
    known = {option.key: option for option in options()}
    values: dict[str, Any] = {}
    for key, value in _from_file(path).items():
        if key not in known:
            raise ConfigError(f"unknown key {key} in {path}{_suggestion(key, known)}")
        values[key] = _checked(known[key], value)
    environment = {option.environment: option for option in known.values()}
    for name, text in environ.items():
        # Two underscores: the client's SPECTROGRAM_PREDICTOR_URL and its like are not settings.
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            if name not in environment:
                raise ConfigError(f"unknown environment variable {name}")
            values[environment[name].key] = _parsed(environment[name], text)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set takes section.key=value, not {override!r}")
        if key not in known:
            raise ConfigError(f"unknown key {key}{_suggestion(key, known)}")
        values[key] = _parsed(known[key], text)
    return _build(values)


def _section_class(name: str) -> type:
    cls = get_type_hints(Settings)[name]
    assert isinstance(cls, type)
    return cls


def _from_file(path: Path | str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} is not TOML: {error}") from error
    values = {}
    for section, table in document.items():
        if not isinstance(table, dict):
            raise ConfigError(f"unknown key {section} in {path}: every key is in a section")
        values.update({f"{section}.{name}": value for name, value in table.items()})
        if not table and section not in {item.name for item in dataclasses.fields(Settings)}:
            raise ConfigError(f"unknown section {section} in {path}")
    return values


def _parsed(option: Option, text: str) -> Any:
    if option.type is str:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigError(_expected(option, text)) from error
    return _checked(option, value)


def _checked(option: Option, value: Any) -> Any:
    if option.type is float and type(value) is int:
        value = float(value)
    if type(value) is not option.type:
        raise ConfigError(_expected(option, value))
    if (
        isinstance(value, int | float)
        and option.minimum is not None
        and not (option.minimum <= value <= option.maximum and math.isfinite(value))
    ):
        most = f" and at most {option.maximum:g}" if option.maximum < math.inf else ""
        raise ConfigError(f"{option.key} must be at least {option.minimum:g}{most}, not {value!r}")
    return value


def _expected(option: Option, value: Any) -> str:
    kinds = {int: "a whole number", float: "a number", str: "a string", dict: "a table"}
    return f"{option.key} must be {kinds[option.type]}, not {value!r}"


def _suggestion(key: str, known: Mapping[str, Option]) -> str:
    section = key.split(".")[0]
    names = [option.name for option in known.values() if option.section == section]
    return f"; [{section}] has {', '.join(names)}" if names else ""


def _build(values: Mapping[str, Any]) -> Settings:
    sections: dict[str, Any] = {}
    for section in dataclasses.fields(Settings):
        prefix = f"{section.name}."
        given = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        if "options" in given:
            given["options"] = types.MappingProxyType(given["options"])
        sections[section.name] = _section_class(section.name)(**given)
    return Settings(**sections)
