"""TLS servers whose certificates are signed by an authority of the tests."""

from __future__ import annotations

import datetime
import ipaddress
import os
from unittest import mock

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.trial.unittest import TestCase

CA = trustme.CA()


def server_context(
    *names: str,
    ca: trustme.CA = CA,
    begins: datetime.datetime | None = None,
    expired: bool = False,
    self_signed: bool = False,
) -> CertificateOptions:
    """Return a context for ``listenSSL`` whose certificate is for `names`."""
    if self_signed:
        return _options(*_self_signed(names[0]), [])
    ends = datetime.datetime(2020, 1, 1) if expired else None
    issued = ca.issue_cert(*names, not_before=begins, not_after=ends)
    first, *others = (part.bytes() for part in issued.cert_chain_pems)
    return _options(issued.private_key_pem.bytes(), first, others)


def trust(test: TestCase, ca: trustme.CA = CA) -> None:
    """Make `ca` the only trusted authority until the end of the test."""
    path = test.mktemp()
    ca.cert_pem.write_to_path(path)
    patched = mock.patch.dict(os.environ, {"SSL_CERT_FILE": path})
    patched.start()
    test.addCleanup(patched.stop)


def _options(key: bytes, certificate: bytes, chain: list[bytes]) -> CertificateOptions:
    options: CertificateOptions = PrivateCertificate.loadPEM(key + certificate).options()
    options.extraCertChain = [crypto.load_certificate(crypto.FILETYPE_PEM, part) for part in chain]
    return options


def _self_signed(address: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)
