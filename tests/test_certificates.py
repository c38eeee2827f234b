"""The certificate: made, loaded, renewed."""

import os
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from spectrogram_predictor.certificates import ServerCertificate, make_self_signed
from spectrogram_predictor.errors import ConfigError
from tests.live import Live, wait_until


def test_a_pair_is_made_once(tmp_path: Path) -> None:
    """The key is for its owner only, and nothing is ever overwritten."""
    make_self_signed(tmp_path / "certs")
    key = tmp_path / "certs" / "server.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(ConfigError):
        make_self_signed(tmp_path / "certs")
    assert key.read_bytes() == before


def test_a_missing_pair_names_the_command(tmp_path: Path) -> None:
    """The error is the way out."""
    with pytest.raises(ConfigError, match="spectrogram-predictor certs"):
        ServerCertificate(tmp_path)


def test_a_pair_that_is_none_is_refused(tmp_path: Path) -> None:
    """Garbage, and the key of another certificate."""
    make_self_signed(tmp_path / "a")
    make_self_signed(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "server.key", tmp_path / "a" / "server.key")
    with pytest.raises(ConfigError):
        ServerCertificate(tmp_path / "a")


def test_a_renewal_in_the_middle_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new certificate with the old key waits until its own key is there."""
    make_self_signed(tmp_path / "old")
    make_self_signed(tmp_path / "new")
    certificate = ServerCertificate(tmp_path / "old")
    shutil.copy(tmp_path / "new" / "server.crt", tmp_path / "old" / "server.crt")
    certificate.refresh()
    assert "cannot be used yet" in caplog.text
    caplog.clear()
    shutil.copy(tmp_path / "new" / "server.key", tmp_path / "old" / "server.key")
    certificate.refresh()
    assert "cannot be used yet" not in caplog.text


def served(url: str) -> str:
    """Return the certificate that a port shows."""
    host, port = url.removeprefix("https://").split(":")
    return ssl.get_server_certificate((host, int(port)))


def test_a_renewed_certificate_is_served_without_a_restart(make_live: Callable[..., Live], tmp_path: Path) -> None:
    """On both ports, within seconds."""
    make_self_signed(tmp_path / "mine")
    make_self_signed(tmp_path / "renewed")
    live = make_live(server__certs=tmp_path / "mine")
    old = (tmp_path / "mine" / "server.crt").read_text()
    assert served(live.url) == served(live.upload_url) == old
    for name in ("server.key", "server.crt"):
        os.replace(tmp_path / "renewed" / name, tmp_path / "mine" / name)
    wait_until(lambda: served(live.url) != old)
    assert served(live.url) == served(live.upload_url) == (tmp_path / "mine" / "server.crt").read_text()


def test_a_renewal_to_another_type_of_key_is_served(make_live: Callable[..., Live], tmp_path: Path) -> None:
    """From an elliptic curve to RSA: a client that takes either sees the new one."""
    make_self_signed(tmp_path / "mine")
    live = make_live(server__certs=tmp_path / "mine")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    old = x509.load_pem_x509_certificate((tmp_path / "mine" / "server.crt").read_bytes())
    renewed = (
        x509.CertificateBuilder(old.issuer, old.subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "mine" / "server.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    (tmp_path / "mine" / "server.crt").write_bytes(renewed)
    wait_until(lambda: served(live.url) == renewed.decode(), 20)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(live: Live) -> None:
    """TLS 1.2 is the least."""
    host, port = live.url.removeprefix("https://").split(":")
    context = ssl._create_unverified_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((host, int(port))) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(connection)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port))) as connection, context.wrap_socket(connection) as wrapped:
        assert wrapped.version() == "TLSv1.2"
