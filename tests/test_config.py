"""Settings: where they come from, who wins, and what is refused by name."""

import dataclasses
from pathlib import Path

import pytest

from backends.s3 import S3Backend
from spectrogram_predictor import config
from spectrogram_predictor.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def test_the_shipped_file_holds_the_defaults() -> None:
    """config/local.toml says what is built in, key by key."""
    shipped = ROOT / "config" / "local.toml"
    assert config.load(shipped, environ={}) == config.Settings()
    text = shipped.read_text()
    assert [option.key for option in config.options() if f"{option.name} = " not in text] == ["storage.options"]


def test_later_sources_win(tmp_path: Path) -> None:
    """Defaults < file < environment < command line."""
    file = tmp_path / "c.toml"
    file.write_text('[server]\napi_port = 1\nupload_port = 1\nhost = "a"\n[promotion]\ninterval_s = 3\n')
    environ = {"SPECTROGRAM_PREDICTOR_SERVER__API_PORT": "2", "SPECTROGRAM_PREDICTOR_SERVER__UPLOAD_PORT": "2"}
    settings = config.load(file, ["server.api_port=3", "storage.url=/x = y"], environ)
    assert (settings.server.host, settings.server.upload_port, settings.server.api_port) == ("a", 2, 3)
    assert settings.promotion.interval_s == 3.0
    assert settings.storage.url == "/x = y"
    assert settings.server.certs == "certs"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nport = 1", "server.port"),
        ("[nonsense]\na = 1", "nonsense.a"),
        ("[nonsense]", "nonsense"),
        ("port = 1", "port"),
        ('[server]\napi_port = "1"', "server.api_port"),
        ("[server]\napi_port = true", "server.api_port"),
        ("[server]\nhost = 1", "server.host"),
        ("[server]\nupload_port = 65536", "server.upload_port"),
        ("[promotion]\ninterval_s = 0", "promotion.interval_s"),
        ("[promotion]\ninterval_s = nan", "promotion.interval_s"),
        ("[uploads]\nmax_concurrent = -1", "uploads.max_concurrent"),
        ("[storage]\noptions = 1", "storage.options"),
        ("not toml", "TOML"),
    ],
)
def test_a_bad_file_is_refused_with_the_key(tmp_path: Path, text: str, named: str) -> None:
    """Unknown keys, wrong types and impossible values stop the start."""
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named):
        config.load(file, environ={})


@pytest.mark.parametrize("override", ["server.api_port", "server.port=1", "server.api_port=x", "x=1"])
def test_a_bad_override_is_refused(override: str) -> None:
    """--set is as strict as the file."""
    with pytest.raises(ConfigError):
        config.load(overrides=[override], environ={})


def test_an_unknown_environment_name_is_refused() -> None:
    """A typo in the environment is not silently ignored; the client's own names are not settings."""
    with pytest.raises(ConfigError, match="SPECTROGRAM_PREDICTOR_SERVER__PORT"):
        config.load(environ={"SPECTROGRAM_PREDICTOR_SERVER__PORT": "1"})
    assert config.load(environ={"SPECTROGRAM_PREDICTOR_UPLOAD_URL": "x"}) == config.Settings()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is the first mistake."""
    with pytest.raises(ConfigError, match="absent"):
        config.load(tmp_path / "absent.toml", environ={})


def test_the_shipped_s3_file_switches_the_storage_only() -> None:
    """The rest is as built in."""
    settings = config.load(ROOT / "config" / "s3.toml", environ={})
    assert settings.storage.backend == "s3"
    assert dataclasses.replace(settings, storage=config.StorageSettings()) == config.Settings()
    assert S3Backend(settings.storage.url, settings.storage.options).part_bytes == 16 * 2**20
