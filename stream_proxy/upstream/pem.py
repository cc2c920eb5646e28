"""PEM files of a rule: the authorities to trust, and the client certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.ssl import Certificate, trustRootFromCertificates

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True)
class Identity:
    """Certificate, the chain above it, and its key."""

    certificate: crypto.X509
    chain: list[crypto.X509]
    key: crypto.PKey


def read_authorities(path: str) -> IOpenSSLTrustRoot:
    """Return the trust root, for ``optionsForClientTLS``, that replaces the system's authorities.

    :raises ValueError: with one line that begins with the key at fault and names the file.
    """
    found = _certificates("caFile", path)
    root: IOpenSSLTrustRoot = trustRootFromCertificates([Certificate(one) for one in found])
    return root


def read_identity(certificate_file: str, key_file: str | None) -> Identity:
    """Return the certificate for servers that demand one.

    :param key_file: the file with its key, if that is not in `certificate_file`.
    :raises ValueError: with one line that begins with the key at fault and names the file.
    """
    certificate, *chain = _certificates("certificateFile", certificate_file)
    if key_file is None:
        name, path = "certificateFile", certificate_file
        missing = "holds no private key in PEM form, and there is no keyFile"
    else:
        name, path, missing = "keyFile", key_file, "holds no private key in PEM form"
    block = _KEY.search(_read(name, path))
    if block is None:
        raise ValueError(f"{name}: {path} {missing}")
    if b"ENCRYPTED" in block[0]:
        raise ValueError(f"{name}: the key in {path} is encrypted; store it without a passphrase")
    try:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, block[0], b"")
    except (crypto.Error, ValueError, TypeError):
        raise ValueError(f"{name}: {path} holds a private key that cannot be read") from None
    context = SSL.Context(SSL.TLS_METHOD)
    try:
        context.use_certificate(certificate)
    except SSL.Error as error:
        words = openssl_words(error) or "OpenSSL refuses it"
        raise ValueError(
            f"certificateFile: the certificate in {certificate_file} cannot be used: {words}"
        ) from None
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error:
        raise ValueError(
            f"{name}: the key in {path} is not that of the first certificate in {certificate_file}"
        ) from None
    return Identity(certificate, chain, key)


def _certificates(name: str, path: str) -> list[crypto.X509]:
    blocks = _CERTIFICATE.findall(_read(name, path))
    if not blocks:
        raise ValueError(f"{name}: {path} holds no certificate in PEM form")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    except (crypto.Error, ValueError):
        raise ValueError(f"{name}: {path} holds a certificate that cannot be read") from None


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{name}: {path} does not exist") from None
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{name}: is no path of a file") from None


def openssl_words(error: SSL.Error) -> str:
    """Return OpenSSL's own words for an error, or an empty string if it has none."""
    try:
        return str(error.args[0][0][2])
    except (IndexError, TypeError):
        return ""
