"""A throw-away certificate authority with one server and one client certificate, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Authority:
    """Paths of the files written."""

    ca_file: Path
    server_bundle_file: Path
    """Private key and certificate of 127.0.0.1 in one file, as Kafka's PEM key store wants them."""
    client_cert_file: Path
    client_key_file: Path


def write_authority(folder: Path) -> Authority:
    """Make the authority and both certificates, valid for a day around now."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = _new_key()
    ca = _sign("test authority", ca_key, "test authority", ca_key, authority=True)
    server_key, client_key = _new_key(), _new_key()
    server = _sign("127.0.0.1", server_key, "test authority", ca_key)
    client = _sign("client", client_key, "test authority", ca_key)
    written = Authority(
        folder / "ca.pem", folder / "server-bundle.pem", folder / "client-cert.pem", folder / "client-key.pem"
    )
    written.ca_file.write_bytes(_pem(ca))
    written.server_bundle_file.write_bytes(_pem_key(server_key) + _pem(server) + _pem(ca))
    written.client_cert_file.write_bytes(_pem(client))
    written.client_key_file.write_bytes(_pem_key(client_key))
    return written


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _sign(
    subject: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *, authority: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
