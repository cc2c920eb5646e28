"""What is published of the configuration: reference, schema and example."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import trustme
from jsonschema import Draft202012Validator
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.service.configuration.loading import load_config
from stream_proxy.service.configuration.schema import schema
from stream_proxy.service.configuration.types import Config
from stream_proxy.service.configuration.values import bare
from tests.service.configuration.reference import PAGE, SCHEMA, TABLES, page, schema_text
from tests.service.configuration.test_mistakes import MISTAKES

EXAMPLE = PAGE.parents[1] / "config.example.json"
#: Variables that the example names.
NAMED = ("OPENAI_API_KEY", "AGENTS_CLIENTS", "AGENTS_KEY", "PROXY_PASSWORD", "OPENAI_ORGANIZATION")
#: Mistakes that only values beyond their types make, of which a schema knows nothing.
BEYOND = (
    "is already",
    "must start with",
    "names no host",
    "is not a valid URL",
    "must not hold",
    "must not have a query",
    "must be an IPv4",
    "must be a host name",
    "must be an origin",
    "must hold printable",
    "cannot be read",
    "environment has no",
    "the name of a variable",
    "does not exist",
    "is required where",
    "needs an admin port",
    "it ends too early",
    "no name of a header",
    "set by the proxy",
    "no header may hold",
    "stands in its place",
    "write ${NAME}",
    "is too large",
)


def keys(kind: inspect.Type, place: str = "") -> Iterator[str]:
    """Yield the paths of all keys in a type."""
    kind = bare(kind)
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                path = f"{place}.{field.encode_name}".lstrip(".")
                yield path
                yield from keys(field.type, path)
        case inspect.UnionType():
            for each in kind.types:
                yield from keys(each, place)
        case inspect.ListType():
            yield from keys(kind.item_type, place)


def used(value: Any, place: str = "") -> Iterator[str]:
    """Yield the paths of all keys in a configuration."""
    match value:
        case dict():
            for key, each in value.items():
                path = f"{place}.{key}".lstrip(".")
                yield path
                yield from used(each, path)
        case list():
            for each in value:
                yield from used(each, place)


class ReferenceTests(SynchronousTestCase):
    """``docs/configuration.md`` and ``docs/config.schema.json``."""

    def test_in_step(self) -> None:
        """Both are what the types make; ``python -m tests.service.configuration.reference`` writes them."""
        self.assertEqual(page(PAGE.read_text()), PAGE.read_text())
        self.assertEqual(schema_text(), SCHEMA.read_text())

    def test_all(self) -> None:
        """The page has all tables, each once."""
        self.assertEqual(sorted(re.findall(r"<!-- keys: (\w+) -->", PAGE.read_text())), sorted(TABLES))


class ExampleTests(SynchronousTestCase):
    """``config.example.json``."""

    def setUp(self) -> None:
        self.config = json.loads(EXAMPLE.read_text())

    def test_every_key(self) -> None:
        """It has every key, and can be used once there are the files that it names."""
        wanted, found = set(keys(inspect.type_info(Config))), set(used(self.config))
        for one, other in (("file", "environment"), ("environment", "file")):  # which exclude each other
            found |= {f"{key.rpartition('.')[0]}.{other}" for key in found if key.endswith(f".{one}")}
        self.assertEqual(wanted - found, set())
        folder = Path(self.mktemp())
        folder.mkdir()
        before = os.getcwd()
        os.chdir(folder)
        self.addCleanup(os.chdir, before)
        authority = trustme.CA()
        authority.cert_pem.write_to_path("authorities.pem")
        certificate = authority.issue_cert("client.example")
        certificate.cert_chain_pems[0].write_to_path("client.pem")
        certificate.private_key_pem.write_to_path("client-key.pem")
        for name in ("clients.keys", "admin.key"):
            Path(name).write_text("key\n")
            Path(name).chmod(0o600)
        with mock.patch.dict(os.environ, dict.fromkeys(NAMED, "x")):
            config, warnings = load_config(EXAMPLE)
        self.assertEqual((len(config.rules), warnings), (3, []))

    def test_defaults(self) -> None:
        """Times and sizes at its top level are the defaults."""
        for field in Config.__struct_fields__:
            value = getattr(Config(rules=[]), field)
            key = Config.__struct_encode_fields__[Config.__struct_fields__.index(field)]
            if isinstance(value, (int, float)):
                self.assertEqual(self.config[key], value, key)


class SchemaTests(SynchronousTestCase):
    """The schema, as an editor uses it."""

    def setUp(self) -> None:
        self.made = schema()
        Draft202012Validator.check_schema(self.made)
        self.validator = Draft202012Validator(self.made)

    def test_example(self) -> None:
        """The example follows it, and so do notes in every object."""
        example = json.loads(EXAMPLE.read_text())
        self.assertEqual(list(self.validator.iter_errors(example)), [])
        noted = copy.deepcopy(example)
        noted["rules"][0]["_why"] = noted["admin"]["$x"] = ["mine"]
        self.assertEqual(list(self.validator.iter_errors(noted)), [])

    def test_mistakes(self) -> None:
        """It finds the mistakes that the check finds, if types alone show them."""
        found = 0
        for content, line in MISTAKES:
            if isinstance(content, str) or any(words in line for words in BEYOND):
                continue
            found += 1
            self.assertNotEqual(list(self.validator.iter_errors(content)), [], (content, line))
        self.assertGreater(found, 50)
