"""An authority of our own, and TLS servers whose certificates it signed."""

from __future__ import annotations

import datetime
import os
from typing import Any
from unittest import mock

import trustme
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

CA = trustme.CA()


def server_context(*names: str, ca: trustme.CA = CA, expired: bool = False) -> Any:
    """What ``listenSSL`` needs for a server that shows a certificate for `names`."""
    ends = datetime.datetime(2020, 1, 1) if expired else None
    issued = ca.issue_cert(*names, not_after=ends)
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    return PrivateCertificate.loadPEM(issued.private_key_pem.bytes() + chain).options()


def trust(test: TestCase, ca: trustme.CA = CA) -> None:
    """Make `ca` the one that the system trusts, until the end of the test."""
    path = test.mktemp()
    ca.cert_pem.write_to_path(path)
    patched = mock.patch.dict(os.environ, {"SSL_CERT_FILE": path})
    patched.start()
    test.addCleanup(patched.stop)
