"""TLS policy for upstreams, whose failures name their cause."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet._sslverify import IOpenSSLTrustRoot, _verifyCB
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from stream_proxy.upstream.pem import Identity

# X509_V_ERR_* of OpenSSL's x509_vfy.h, in words that tell a user what to do.
_CAUSES = {
    9: "its certificate is not yet valid",
    10: "its certificate has expired",
    18: "its certificate is self-signed and not trusted",
    19: "its certificate chain ends in an authority that is not trusted",
    20: "its certificate comes from an authority that is not trusted",
    21: "its certificate cannot be verified, because the chain is incomplete",
    23: "its certificate was revoked",
    62: "its certificate is for another host name",
    64: "its certificate is for another IP address",
}


class CertificateError(Exception):
    """Rejected certificate of an upstream; the text is the reason, to follow "TLS failed: "."""


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, host: str, authorities: IOpenSSLTrustRoot | None, identity: Identity | None) -> None:
        extra: dict[str, object] = {}
        if identity is not None:
            extra = {
                "certificate": identity.certificate,
                "privateKey": identity.key,
                "extraCertChain": identity.chain,
            }
        # One object for all connections, since it creates its SSL context only once.
        self._options: Any = optionsForClientTLS(host, authorities, extraCertificateOptions=extra)

    def clientConnectionForTLS(self, tls: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection: SSL.Connection = self._options.clientConnectionForTLS(tls)
        verify = _verifyCB(tls, self._options._hostnameIsDnsName, self._options._hostnameASCII)

        def named(conn: SSL.Connection, cert: crypto.X509, code: int, depth: int, ok: int) -> bool:
            if not ok:
                cause = _CAUSES.get(code, f"its certificate was refused (OpenSSL's verification code {code})")
                tls.failVerification(Failure(CertificateError(cause)))
                return False
            return verify(conn, cert, code, depth, bool(ok))

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, named)
        return connection


@implementer(IPolicyForHTTPS)
class VerifyingPolicy:
    """Policy that demands a certificate for the right name, from an authority that the system trusts.

    The system's authorities are those on OpenSSL's paths, so ``SSL_CERT_FILE`` counts. The checks are those
    of Twisted's ``BrowserLikePolicyForHTTPS``, but a rejection reaches the protocol's ``connectionLost`` as
    :class:`CertificateError`, or as service-identity's ``VerificationError`` if the name is another one.

    :param authorities: a trust root of ``optionsForClientTLS``, in place of the system's.
    :param identity: the certificate for servers that demand one.
    """

    def __init__(
        self, authorities: IOpenSSLTrustRoot | None = None, identity: Identity | None = None
    ) -> None:
        self._authorities = authorities
        self._identity = identity

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return _Creator(hostname.decode("ascii"), self._authorities, self._identity)
