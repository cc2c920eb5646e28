"""Faults of what comes in place of an HTTP response."""

from __future__ import annotations


class HeadTooLargeError(Exception):
    """The head of a response does not end."""


class InvalidAnswerError(Exception):
    """The bytes that came are no HTTP response."""


class TLSSpokenError(InvalidAnswerError):
    """The bytes that came in place of an HTTP response are TLS."""


class HTTP2SpokenError(InvalidAnswerError):
    """The bytes that came in place of an HTTP response are HTTP/2."""
