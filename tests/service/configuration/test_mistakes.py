"""Plausible mistakes in a configuration, each with the exact message."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.loading import parse_config

URL = "https://api.openai.com"
RULE: dict[str, Any] = {"listenPort": 8080, "upstreamUrl": URL}
NO_KEYS = 'keys do not stand in the config; use {"file": PATH} or {"environment": NAME}'
USAGES = '"always", "auto" or "never"'
ADDRESS = "must be an IPv4 or IPv6 address, such as 127.0.0.1"
LEVELS = '"debug", "error", "info", "warn" or "warning"'


def rule(**keys: object) -> dict[str, object]:
    """Return a configuration whose one rule has these keys as well."""
    return {"rules": [{**RULE, **keys}]}


def top(**keys: object) -> dict[str, object]:
    """Return a configuration with one rule, and with these keys at the top level."""
    return {"rules": [RULE], **keys}


def alone(**keys: object) -> dict[str, object]:
    """Return a configuration whose one rule has these keys alone."""
    return {"rules": [keys]}


#: What somebody wrote, and what they are told.
MISTAKES: tuple[tuple[object, str], ...] = (
    # Ports and addresses.
    (rule(listenPort="8080"), 'rules[0].listenPort: must be a number: 8080, not "8080"'),
    (rule(listenPort=80.5), "rules[0].listenPort: must be a whole number, not 80.5"),
    (rule(listenPort=True), "rules[0].listenPort: must be a number, not true"),
    (rule(listenPort=None), "rules[0].listenPort: must be a number, not null"),
    (rule(listenPort=[8080]), "rules[0].listenPort: must be a number, not a list"),
    (rule(listenPort=0), "rules[0].listenPort: must be a number from 1 to 65535, not 0"),
    (rule(listenPort=80800), "rules[0].listenPort: must be a number from 1 to 65535, not 80800"),
    (alone(upstreamUrl=URL), "rules[0].listenPort: is required"),
    (
        rule(listenAddress="localhost"),
        f"rules[0].listenAddress: {ADDRESS}",
    ),
    (
        rule(listenAddress="127.0.0.1:80"),
        f"rules[0].listenAddress: {ADDRESS}",
    ),
    (
        rule(listen="tcp:80"),
        "rules[0].listen: stands in place of listenPort and listenAddress; leave these out",
    ),
    ({"rules": [RULE, RULE]}, "rules[1].listenPort: port 8080 is already used by rules[0]"),
    (top(admin={"listenPort": 8080}), "admin.listenPort: port 8080 is already used by rules[0]"),
    # Keys by other names, or in other places.
    (alone(listenport=80, upstreamUrl=URL), "rules[0].listenport: unknown key; did you mean listenPort?"),
    (alone(listenPort=80, upstreamURL=URL), "rules[0].upstreamURL: unknown key; did you mean upstreamUrl?"),
    (alone(listen_port=80, upstreamUrl=URL), "rules[0].listen_port: unknown key; did you mean listenPort?"),
    (alone(port=80, upstreamUrl=URL), "rules[0].port: unknown key; did you mean listenPort?"),
    (alone(listenPort=80, url=URL), "rules[0].url: unknown key; did you mean upstreamUrl?"),
    (rule(clientKey={"file": "k"}), "rules[0].clientKey: unknown key; did you mean clientKeys?"),
    (rule(listenaddress="::1"), "rules[0].listenaddress: unknown key; did you mean listenAddress?"),
    (rule(comment="mine"), "rules[0].comment: unknown key"),
    (rule(workers=2), "rules[0].workers: unknown key here; it belongs at the top level"),
    (rule(maxRequestBytes=1), "rules[0].maxRequestBytes: unknown key here; it belongs at the top level"),
    (top(timeout=60), "timeout: unknown key; did you mean timeoutSeconds?"),
    (top(timeout_seconds=60), "timeout_seconds: unknown key; did you mean timeoutSeconds?"),
    (top(clientKeys={"file": "k"}), "clientKeys: unknown key here; it belongs in a rule"),
    (top(format="json"), "format: unknown key here; it belongs in log"),
    (top(metrics={"size": 5}), "metrics.size: unknown key; known here: models, streams"),
    (top(**{"a\nb": 1}), "a b: unknown key"),
    (top(**{"\ud800": 1}), r"\ud800: unknown key"),
    ({"rule": [RULE]}, "rule: unknown key; did you mean rules?"),
    # Rules.
    ({}, "rules: is required"),
    ({"rules": []}, "rules: must have at least one entry"),
    ({"rules": None}, "rules: must be a list, not null"),
    ({"rules": RULE}, "rules: must be a list: [{…}], not an object"),
    ({"rules": [URL]}, f'rules[0]: must be an object: {{"upstreamUrl": "{URL}"}}, not "{URL}"'),
    (
        {"rules": [{**RULE, "name": "a"}, {**RULE, "listenPort": 81, "name": "a"}]},
        "rules[1].name: a is already the name of rules[0]",
    ),
    (
        {"rules": [{**RULE, "listenPort": 80}, {**RULE, "listenPort": 81, "name": "80"}]},
        "rules[1].name: 80 is already the name of rules[0]",
    ),
    (
        {"rules": [{**RULE, "listenPort": 80, "name": "81"}, {**RULE, "listenPort": 81}]},
        "rules[1].listenPort: 81 is already the name of rules[0]",
    ),
    (rule(name=8080), 'rules[0].name: must be text in quotes: "8080", not 8080'),
    (rule(name=""), "rules[0].name: must not be empty"),
    (rule(name="a" * 65), "rules[0].name: must have at most 64 characters, not 65"),
    (rule(name="a\tb"), "rules[0].name: must hold printable characters alone"),
    # URLs.
    (alone(listenPort=80), "rules[0].upstreamUrl: is required"),
    (rule(upstreamUrl=None), "rules[0].upstreamUrl: must be text in quotes, not null"),
    (rule(upstreamUrl="api.openai.com"), "rules[0].upstreamUrl: must start with http:// or https://"),
    (
        rule(upstreamUrl="http://h:x"),
        "rules[0].upstreamUrl: is not a valid URL: Port could not be cast to integer value as 'x'",
    ),
    (
        rule(upstreamUrl="https://u:p@h"),
        "rules[0].upstreamUrl: must not hold a user name or password; clients send their own Authorization",
    ),
    (rule(upstreamUrl="https://h/v1?a=b"), "rules[0].upstreamUrl: must not have a query or a fragment"),
    (rule(proxy="proxy:3128"), "rules[0].proxy: must start with http:// or https://"),
    (
        rule(hosts=["https://a.example"]),
        "rules[0].hosts: https://a.example must be a host name without scheme and port",
    ),
    (
        rule(origins=["*"]),
        "rules[0].origins: * must be an origin like https://app.example or http://localhost:*",
    ),
    # Words, switches and lists.
    (rule(includeUsage=True), f"rules[0].includeUsage: must be {USAGES}, not true"),
    (
        rule(includeUsage="alway"),
        f'rules[0].includeUsage: must be {USAGES}, not "alway"; did you mean "always"?',
    ),
    (rule(includeUsage="a\nb"), rf'rules[0].includeUsage: must be {USAGES}, not "a\nb"'),
    (rule(hosts="a.example"), 'rules[0].hosts: must be a list: ["a.example"], not "a.example"'),
    (rule(hosts=["a.example", 5]), 'rules[0].hosts[1]: must be text in quotes: "5", not 5'),
    (top(log="json"), 'log: must be an object: {"format": "json"}, not "json"'),
    (top(log={"level": "INFO"}), f'log.level: must be {LEVELS}, not "INFO"; did you mean "info"?'),
    (top(metrics=False), "metrics: must be an object: {…}, not false"),
    (top(metrics={"streams": "false"}), 'metrics.streams: must be true or false: false, not "false"'),
    (top(metrics={"streams": 0}), "metrics.streams: must be true or false, not 0"),
    # Times, sizes and counts.
    (top(timeoutSeconds="600"), 'timeoutSeconds: must be a number: 600, not "600"'),
    (top(timeoutSeconds="10m"), 'timeoutSeconds: must be a number: 600, not "10m"'),
    (top(keepAliveSeconds="15"), 'keepAliveSeconds: must be a number or "auto": 15, not "15"'),
    (rule(keepAliveSeconds=True), 'rules[0].keepAliveSeconds: must be a number or "auto", not true'),
    (rule(keepAliveSeconds=-1), "rules[0].keepAliveSeconds: must be a number of at least 0, not -1"),
    (top(timeoutSeconds="soon"), 'timeoutSeconds: must be a number, not "soon"'),
    (top(timeoutSeconds=0), "timeoutSeconds: must be a number above 0, not 0"),
    (top(shutdownGraceSeconds=-1), "shutdownGraceSeconds: must be a number of at least 0, not -1"),
    (top(maxRequestBytes="100MB"), 'maxRequestBytes: must be a number: 104857600, not "100MB"'),
    (top(maxRequestBytes=1e3 + 0.5), "maxRequestBytes: must be a whole number, not 1000.5"),
    (top(maxRequestBytes=1e300), "maxRequestBytes: is too large a number"),
    (top(maxRequestBytes=float("inf")), "maxRequestBytes: must be a whole number, not Infinity"),
    (top(maxRequestBytes=2**63), "maxRequestBytes: is too large a number"),
    (top(workers="auto"), 'workers: must be a number, not "auto"'),
    (top(workers=65), "workers: must be a number from 1 to 64, not 65"),
    (rule(retries=0.5), "rules[0].retries: must be a whole number, not 0.5"),
    # Keys, which no message repeats.
    (rule(clientKeys="sk-s3cret"), f"rules[0].clientKeys: {NO_KEYS}"),
    (rule(clientKeys=["sk-s3cret"]), f"rules[0].clientKeys: {NO_KEYS}"),
    (rule(clientKeys={}), 'rules[0].clientKeys: must be {"file": PATH} or {"environment": NAME}'),
    (rule(clientKeys={"env": "KEYS"}), "rules[0].clientKeys.env: unknown key; did you mean environment?"),
    (
        rule(clientKeys={"file": "/none/keys"}),
        "rules[0].clientKeys: /none/keys cannot be read: " + os.strerror(errno.ENOENT),
    ),
    (
        rule(upstreamKey={"environment": "NO_KEY"}),
        "rules[0].upstreamKey: the environment has no NO_KEY",
    ),
    (
        rule(upstreamKey={"environment": "sk-s3cret"}),
        "rules[0].upstreamKey.environment: must be the name of a variable, such as OPENAI_API_KEY",
    ),
    (rule(caFile="/none/ca.pem"), "rules[0].caFile: /none/ca.pem does not exist"),
    (
        rule(requestHeaders={"set": {"A": 5}}),
        'rules[0].requestHeaders.set.A: must be text in quotes: "5", not 5',
    ),
    (
        rule(requestHeaders={"set": {"X Y": "1"}}),
        "rules[0].requestHeaders.set.X Y: is no name of a header field",
    ),
    (
        rule(requestHeaders={"set": {"Host": "x"}}),
        "rules[0].requestHeaders.set.Host: is set by the proxy itself",
    ),
    (
        rule(requestHeaders={"remove": ["TE"]}),
        "rules[0].requestHeaders.remove[0]: is set by the proxy itself",
    ),
    (
        rule(requestHeaders={"set": {"A": "b\r\nC: d"}}),
        "rules[0].requestHeaders.set.A: has characters that no header may hold",
    ),
    (
        rule(requestHeaders={"set": {"A": "${NO_KEY}"}}),
        "rules[0].requestHeaders.set.A: the environment has no NO_KEY",
    ),
    (
        rule(requestHeaders={"set": {"authorization": "${PATH}"}}, upstreamKey={"environment": "PATH"}),
        "rules[0].requestHeaders.set.authorization: upstreamKey stands in its place; leave one out",
    ),
    (
        rule(requestHeaders={"set": {"Authorization": "Bearer sk-s3cret"}}),
        "rules[0].requestHeaders.set.Authorization: keys do not stand in the config; write ${NAME} for a "
        "variable",
    ),
    (
        rule(requestHeaders={"Authorization": "x"}),
        "rules[0].requestHeaders.Authorization: unknown key; known here: set, remove",
    ),
    # The admin port.
    (top(admin=9901), 'admin: must be an object: {"listenPort": 9901}, not 9901'),
    (top(admin={}), "admin.listenPort: is required"),
    (
        top(admin={"listenPort": 9901, "listenAddress": "0.0.0.0"}),
        "admin.key: is required where other machines can connect; or leave listenAddress out",
    ),
    (
        top(admin={"listenPort": 9901}, capture={}),
        "admin.key: is required where there is a capture: it shows what other users sent",
    ),
    (top(capture={}), "capture: needs an admin port, where it is looked at"),
    # Adapters.
    (rule(adapter=True), "rules[0].adapter: must be an object: {…}, not true"),
    (rule(adapter={"models": "gpt"}), 'rules[0].adapter.models: must be a list: ["gpt"], not "gpt"'),
    (rule(adapter={"headers": {"A": 5}}), 'rules[0].adapter.headers.A: must be text in quotes: "5", not 5'),
    (rule(adapter={"content": "data.["}), "rules[0].adapter.content: column 7: it ends too early, in data.["),
    # What is no object.
    ("", "the config file is empty; it must hold an object with rules"),
    (" \n", "the config file is empty; it must hold an object with rules"),
    ([RULE], "must hold an object with rules, not a list"),
    (None, "must hold an object with rules, not null"),
    ("8080", "must hold an object with rules, not 8080"),
)


class MistakeTests(SynchronousTestCase):
    """A line names file, key and problem of each mistake."""

    def lines(self, content: object) -> list[str]:
        """Return the lines about a file with a text, or with the JSON of something else."""
        text = content if isinstance(content, str) else json.dumps(content)
        with self.assertRaises(ConfigError) as caught:
            parse_config(text.encode(), "config.json")
        return str(caught.exception).split("\n")

    def test_each(self) -> None:
        """Each plausible mistake alone has its one line."""
        for content, line in MISTAKES:
            self.assertEqual(self.lines(content), [f"config.json: {line}"])

    def test_no_secret(self) -> None:
        """No message repeats what may be a key."""
        for content, line in MISTAKES:
            self.assertNotIn("s3cret", line, content)

    def test_all_at_once(self) -> None:
        """All mistakes of all kinds are told together, those of one rule one after the other."""
        headers = {"X Y": "1", "Z": "${NO_Z}"}
        config = {
            "timeoutSeconds": "x",
            "rules": [
                {"listenPort": "8080", "upstreamUrl": "api.openai.com"},
                {"upstreamUrl": URL, "includeUsage": "no", "hosts": ["a:1", "b:2"]},
                RULE,
                {
                    **RULE,
                    "adapter": {"content": "a.[", "usage": "b.[", "headers": headers},
                },
            ],
            "worker": 1,
            "admin": {"port": 9901, "listenAddress": "x", "key": "k"},
        }
        self.assertEqual(
            self.lines(config),
            [
                f"config.json: {line}"
                for line in (
                    'timeoutSeconds: must be a number, not "x"',
                    "worker: unknown key; did you mean workers?",
                    "admin.port: unknown key; did you mean listenPort?",
                    f"admin.key: {NO_KEYS}",
                    "admin.listenAddress: must be an IPv4 or IPv6 address, such as 127.0.0.1",
                    'rules[0].listenPort: must be a number: 8080, not "8080"',
                    "rules[0].upstreamUrl: must start with http:// or https://",
                    f'rules[1].includeUsage: must be {USAGES}, not "no"',
                    "rules[1].listenPort: is required",
                    "rules[1].hosts: a:1 must be a host name without scheme and port",
                    "rules[1].hosts: b:2 must be a host name without scheme and port",
                    "rules[3].adapter.headers.X Y: is no name of a header field",
                    "rules[3].adapter.headers.Z: the environment has no NO_Z",
                    "rules[3].adapter.content: column 4: it ends too early, in a.[",
                    "rules[3].adapter.usage: column 4: it ends too early, in b.[",
                    "rules[3].listenPort: port 8080 is already used by rules[2]",
                )
            ],
        )

    def test_not_a_number(self) -> None:
        """NaN, which Python reads in JSON, is no time; infinity is one."""
        text = f'{{"timeoutSeconds": NaN, "rules": [{json.dumps(RULE)}]}}'
        self.assertEqual(self.lines(text), ["config.json: timeoutSeconds: must be a number above 0, not NaN"])
        config, _ = parse_config(text.replace("NaN", "Infinity").encode(), "config.json")
        self.assertEqual(config.timeout_seconds, float("inf"))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        ["rules", "admin", "listenPort", "upstreamUrl", "clientKeys", "file", "log"]
                    )
                    | st.text(max_size=2),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything(self, content: object) -> None:
        """Whatever stands in a file is either a configuration, or ends in lines that can be logged."""
        try:
            parse_config(json.dumps(content).encode(), "c")
        except ConfigError as error:
            for line in str(error).split("\n"):
                self.assertRegex(line, r"\Ac: ")
                line.encode()
