"""Loader of YAML without its surprises: dates stay texts, and a key that stands twice is an error."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class ConfigLoader(yaml.SafeLoader):
    """Loader of what JSON could say as well."""

    #: Dates are left out: no key of the configuration is one.
    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping.

        :raises yaml.constructor.ConstructorError: it has a key twice.
        """
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in seen:
                problem = f"{key.value} is set twice, first in line {seen[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)
