"""What the rules of one process share."""

from __future__ import annotations

from dataclasses import dataclass

from stream_proxy.flows.resuming.resumption import LostCalls
from stream_proxy.observe.ledger import Ledger
from stream_proxy.request_log import RequestLog
from stream_proxy.transport.reactor import IReactor


@dataclass(frozen=True, slots=True)
class Shared:
    """The reactor, the log, the requests of all rules, and what is kept of those whose clients left."""

    reactor: IReactor
    log: RequestLog
    ledger: Ledger
    lost: LostCalls
