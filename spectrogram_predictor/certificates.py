"""The server's certificate: make a self-signed one, load one, pick up a renewed one."""

import datetime
import ipaddress
import logging
import os
import socket
import ssl
from pathlib import Path

from spectrogram_predictor.errors import ConfigError

logger = logging.getLogger(__name__)

CERTIFICATE = "server.crt"
KEY = "server.key"

_DAYS = 825


class ServerCertificate:
    """A TLS context over a certificate folder, kept up to date.

    Parameters
    ----------
    folder : Path
        With ``server.crt`` (the chain) and ``server.key``.

    Attributes
    ----------
    context : ssl.SSLContext
        TLS 1.2 and later; another one after `refresh` has found a renewed certificate.

    Raises
    ------
    ConfigError
        A file is missing, cannot be read, or the two do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self._certificate = folder / CERTIFICATE
        self._key = folder / KEY
        for path in (self._certificate, self._key):
            if not path.exists():
                raise ConfigError(
                    f"there is no {path}. For a self-signed certificate: spectrogram-predictor certs {folder}"
                )
            if not os.access(path, os.R_OK):
                raise ConfigError(f"cannot read {path}: make it readable for user id {os.getuid()}")
        self._seen = self._stamp()
        try:
            self.context = _context(self._certificate, self._key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{self._certificate} and {self._key} are not a certificate and its key") from error

    def refresh(self) -> None:
        """Load the files again if they have changed.

        A pair that does not load, as in the middle of a renewal, changes nothing and is tried again.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            # Not into the old context: OpenSSL keeps one of each key type, and the old one would stay.
            self.context = _context(self._certificate, self._key)
        except (ssl.SSLError, OSError) as error:
            logger.warning("the changed certificate cannot be used yet: %s", error)
            return
        self._seen = stamp
        logger.info("using the renewed certificate")

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        try:
            found = [path.stat() for path in (self._certificate, self._key)]
        except OSError:
            return ()
        return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)


def make_self_signed(folder: Path) -> Path:
    """Write a certificate and key for this machine; return the certificate's path.

    Never overwrites.

    Raises
    ------
    ConfigError
        One of the files is there already, or they cannot be written.
    """
    for path in (folder / CERTIFICATE, folder / KEY):
        if path.exists():
            raise ConfigError(f"{path} is there already; it is left as it is")
    certificate, key = _sign_for_localhost()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / KEY, key, 0o600)
        _write(folder / CERTIFICATE, certificate, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}") from error
    return folder / CERTIFICATE


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def _sign_for_localhost() -> tuple[bytes, bytes]:
    """Return a certificate and its key, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spectrogram-predictor")])
    hosts = dict.fromkeys(host for host in ("localhost", socket.gethostname()) if host.isascii())
    addresses = [ipaddress.ip_address(text) for text in ("127.0.0.1", "::1")]
    names = [*map(x509.DNSName, hosts), *map(x509.IPAddress, addresses)]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(pem), key.private_bytes(pem, pkcs8, serialization.NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
