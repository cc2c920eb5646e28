"""Sources of keys: files and the environment, never the config itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from stream_proxy.environment import QUOTES, unquoted
from stream_proxy.http.headers import is_field_name

_KEY = re.compile(r"[\x21-\x7e]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class KeySource(Struct, frozen=True):
    """A file with a key on each line, or an environment variable.

    In the file, blank lines and lines that begin with ``#`` are skipped; in the variable, blanks or commas
    separate the keys. Quotes around a key, or around all of the variable, are not part of it. A relative path
    starts at the working directory.
    """

    file: Annotated[str | None, Meta(description="the path of a file with a key on each line")] = None
    environment: Annotated[
        str | None, Meta(description="the name of an environment variable that holds the keys")
    ] = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.environment is None):
            raise ValueError('must be {"file": PATH} or {"environment": NAME}')

    def read(self, environ: Mapping[str, str] | None = None) -> list[bytes]:
        """Return the keys, at least one.

        :raises ValueError: there is none; the text does not quote what was found instead.
        """
        if self.file is not None:
            source, found = self.file, self._lines(self.file)
        else:
            if not _VARIABLE.fullmatch(self.environment or ""):
                # Most likely the key itself, which the text must not quote.
                raise ValueError("environment: must be the name of a variable, such as OPENAI_API_KEY")
            source = f"the environment's {self.environment}"
            value = (os.environ if environ is None else environ).get(self.environment or "")
            if value is None:
                raise ValueError(f"the environment has no {self.environment}")
            found = re.split(r"[\s,]+", unquoted(value))
        found = [key for each in found if (key := unquoted(each))]
        if not found:
            raise ValueError(f"{source} holds no key")
        if any(key[0] in QUOTES or key[-1] in QUOTES for key in found):
            raise ValueError(f"{source} holds a key with a quote at one end; remove it")
        if not all(_KEY.fullmatch(key) for key in found):
            raise ValueError(f"{source} holds a key with characters that no key has, such as blanks")
        return [key.encode("ascii") for key in found]

    def _lines(self, path: str) -> list[str]:
        try:
            lines = Path(path).read_bytes().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text file with a key on each line") from None
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) else "no valid path"
            raise ValueError(f"{path} cannot be read: {problem}") from None
        return [key for line in lines if (key := line.strip()) and not key.startswith("#")]

    @property
    def exposed(self) -> bool:
        """Whether every user of this machine can read the file."""
        return self.file is not None and bool(os.stat(self.file).st_mode & 0o004)


class UpstreamKeySource(KeySource, frozen=True):
    """A source of exactly one key, and the header field that it is sent in, if not ``Authorization``."""

    header: Annotated[
        str | None, Meta(description="the header field that the key is sent in, by default `Authorization`")
    ] = None

    def read(self, environ: Mapping[str, str] | None = None) -> list[bytes]:
        """Return the key.

        :raises ValueError: there is none, or more than one.
        """
        if self.header is not None and not is_field_name(self.header):
            raise ValueError("header: is no name of a header field")
        keys = super().read(environ)
        if len(keys) > 1:
            raise ValueError("holds more than one key; the upstream is called with one")
        return keys
