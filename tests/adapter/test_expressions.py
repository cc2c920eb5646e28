"""Expressions, templates and the helpers of conversations, as an adapter's configuration uses them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.adapter.expressions import Expression, ExpressionError
from stream_proxy.adapter.helpers import content_text, helper
from stream_proxy.adapter.template import Context, Template, TemplateError, TextTemplate
from stream_proxy.lenient_json import JSON, JSONObject

CALL: dict[str, Any] = {
    "model": "m",
    "temperature": 0.5,
    "max_tokens": 7,
    "stream": True,
    "stop": ["a", "b"],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "are you?"}]},
    ],
}


class ExpressionTests(TestCase):
    """Searches, and the errors for expressions that cannot be compiled."""

    def test_search(self) -> None:
        """An expression finds a value; one that does not fit finds nothing instead of failing."""
        self.assertEqual(Expression("a.b[0]").search({"a": {"b": [7]}}), 7)
        self.assertIsNone(Expression("a.b").search({"a": 1}))
        self.assertIsNone(Expression("length(a)").search({"a": 1}))
        self.assertIsNone(Expression("join('', a)").search({}))
        self.assertEqual(Expression("role=='x' && 'y' || 'z'").search({"role": "w"}), "z")

    def test_functions(self) -> None:
        """Two functions read JSON inside a string, and the text of a message's content."""
        self.assertEqual(Expression("from_json(a).b").search({"a": '{"b": "c"}'}), "c")
        self.assertIsNone(Expression("from_json(a).b").search({"a": '{"b'}))
        self.assertIsNone(Expression("from_json(a)").search({}))
        self.assertEqual(Expression("messages[*].text(content) | [-1]").search(CALL), "Who\nare you?")

    def test_variables(self) -> None:
        """``$event`` and ``$headers`` are values beside the one searched, also in filters; not in quotes."""
        beside: dict[str, JSON] = {"event": "token", "headers": {"x-team": "a"}}
        value: JSON = {"items": [{"kind": "token", "text": "A"}, {"kind": "other", "text": "B"}], "a": 1}
        for source, found in (
            ("$event", "token"),
            ("$event == 'token' && a || null", 1),
            ("$event=='x'", False),
            ("items[?kind == $event].text | [0]", "A"),
            ('$headers."x-team"', "a"),
            ("$headers.none", None),
            ("'$event'", "$event"),
            ("join('-', ['$event', $event])", "$event-token"),
        ):
            self.assertEqual(Expression(source).search(value, beside), found, source)
        self.assertIsNone(Expression("$event").search(value))
        with self.assertRaisesRegex(ExpressionError, "column 15: it ends too early"):
            Expression("$event == a.b[")
        with self.assertRaisesRegex(ExpressionError, "Unknown token"):
            Expression("$even")

    def test_errors(self) -> None:
        """Errors name the column."""
        for source, said in (
            ("", "is empty; it must be a JMESPath expression"),
            ("a.b[", "column 5: it ends too early, in a.b["),
            ("a..b", "column 3: unexpected '.', in a..b"),
            ("a b", "column 3: unexpected 'b', in a b"),
            ('a."x', 'column 3: Unclosed " delimiter, in a."x'),
            ("a.b | nope(@)", "column 7: there is no function nope(), in a.b | nope(@)"),
            ("fooo.x || fooo(a)", "column 11: there is no function fooo(), in fooo.x || fooo(a)"),
            ("&a", "column 1: & only stands before the argument of a function, in &a"),
            ("a || &b", "column 6: & only stands before the argument of a function, in a || &b"),
            ("length(a, b)", "column 1: length() takes 1 arguments, not 2, in length(a, b)"),
            ("a\n b", "column 4: unexpected 'b', in a\\u000a b"),
            ("not_null()", "column 1: not_null() takes at least 1 arguments, not 0, in not_null()"),
        ):
            with self.assertRaises(ExpressionError, msg=source) as caught:
                Expression(source)
            self.assertEqual(str(caught.exception), said)

    def test_leading_fields(self) -> None:
        """Fields of the value itself are distinguished from those of its members."""
        for source, fields in (
            ("a.b", {"a"}),
            ("a[?b=='c'].d", {"a"}),
            ("a[0].b || c", {"a", "c"}),
            ("{x: a, y: b.c}", {"a", "b"}),
            ("join(d, a[*].b)", {"a", "d"}),
            ("a | b", {"a"}),
            ("@.a", set()),
            ("sort_by(a, &b)", {"a"}),
            ("`1`", set()),
            ("!a && b[]", {"a", "b"}),
        ):
            self.assertEqual(Expression(source).leading_fields(), fields, source)

    @given(st.text(max_size=30))
    def test_any_text(self, source: str) -> None:
        """Any text is an expression or a one-line error, and no search with an expression fails."""
        try:
            expression = Expression(source)
        except ExpressionError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
        else:
            expression.search(CALL)


class ConversationTests(TestCase):
    """Helpers, computed from messages."""

    def test_helpers(self) -> None:
        """The last user message, the system prompt, the history and the user."""
        self.assertEqual(helper("last_user_message", CALL), "Who\nare you?")
        self.assertEqual(helper("system_prompt", CALL), "Be brief.")
        self.assertEqual(
            helper("history", CALL),
            "system: Be brief.\n\nuser: Hi\n\nassistant: Hello!\n\nuser: Who\nare you?",
        )
        self.assertEqual(helper("user_id", CALL), "anonymous")
        self.assertEqual(helper("user_id", {"safety_identifier": "s"}), "s")
        self.assertEqual(helper("user_id", {"user": "u", "safety_identifier": "s"}), "u")

    def test_little(self) -> None:
        """The history of a single message is its text; without messages of the kind, helpers are empty."""
        one: JSONObject = {"messages": [{"role": "user", "content": "Hi"}]}
        self.assertEqual(helper("history", one), "Hi")
        self.assertIsNone(helper("system_prompt", one))
        self.assertEqual(helper("last_user_message", {"messages": [{"role": "system", "content": "x"}]}), "")

    def test_content(self) -> None:
        """Parts without text, such as images, are left out."""
        self.assertEqual(content_text(None), "")
        self.assertEqual(
            content_text([{"type": "image_url", "image_url": {}}, {"type": "text", "text": "x"}]), "x"
        )


class TemplateTests(TestCase):
    """Templates, filled."""

    def fill(self, value: Any) -> Any:
        """Fill the template `value` for the call above."""
        return Template(value, "request").fill(Context(CALL))

    def test_types(self) -> None:
        """An expression that stands alone keeps its type; inside a string it is text."""
        template = {
            "model": "{{model}}",
            "options": {"temperature": "{{ temperature }}", "limit": "{{max_tokens}}"},
            "stop": "{{stop}}",
            "title": "{{model}}: {{last_user_message}} ({{max_tokens}}, {{stop}}{{seed}})",
            "fixed": [1, None, True, "x", {"n": None}],
        }
        self.assertEqual(
            self.fill(template),
            {
                "model": "m",
                "options": {"temperature": 0.5, "limit": 7},
                "stop": ["a", "b"],
                "title": 'm: Who\nare you? (7, ["a","b"])',
                "fixed": [1, None, True, "x", {"n": None}],
            },
        )

    def test_headers(self) -> None:
        """``$headers`` are the fields of the client's request, in any case, repeated ones joined."""
        fields = [(b"X-Team", b"blue"), (b"x-team", b"red"), (b"X-Name", "Zo\u00eb".encode())]
        context = Context(CALL, headers=fields)
        template = Template(
            {"t": '{{$headers."X-TEAM"}}', "n": 'I, {{$headers."x-name"}}', "x": "{{$headers.x}}"}, "r"
        )
        self.assertEqual(template.fill(context), {"t": "blue, red", "n": "I, Zo\u00eb"})
        with self.assertRaisesRegex(TemplateError, r"\$event is only known where a payload is read"):
            TextTemplate("{{$event}}", "request")

    def test_absent(self) -> None:
        """A member whose expression finds nothing is left out."""
        self.assertEqual(
            self.fill({"a": "{{seed}}", "b": {"c": "{{top_p}}"}, "d": "{{seed || `3`}}"}), {"b": {}, "d": 3}
        )

    def test_braces(self) -> None:
        """Braces and quotes inside an expression do not end it."""
        pairs = "{{messages[?role!='system'].{r: role, t: text(content)}}}"
        self.assertEqual(self.fill(pairs)[0], {"r": "user", "t": "Hi"})
        self.assertEqual(self.fill("{{'}}'}}-{{'{{'}}"), "}}-{{")
        self.assertEqual(self.fill("{{ {a: model, b: {c: model}} }}"), {"a": "m", "b": {"c": "m"}})
        self.assertEqual(self.fill("{a} }}"), "{a} }}")
        self.assertEqual(self.fill('{{`"\\u007d\\u007d"`}}'), "}}")

    def test_errors(self) -> None:
        """Errors name the position."""
        cases: tuple[tuple[JSON, str], ...] = (
            ({"a": ["x", "{{mesages}}"]}, "messages?"),
            ("{{session}}", "write @.session"),
            ("{{model", "column 1: {{ without its }}"),
            ("a {{}}", "is empty"),
            ("{{model.}}", "column 7: it ends too early, in model."),
        )
        for value, said in cases:
            with self.assertRaises(TemplateError) as caught:
                Template(value, "request")
            self.assertIn(said, str(caught.exception))
        with self.assertRaises(TemplateError) as caught:
            Template({"a": ["x", "{{mesages}}"]}, "request")
        self.assertEqual(
            str(caught.exception),
            "request.a[1]: {{mesages}} refers to mesages, which no chat completion request has; "
            "did you mean messages?",
        )

    def test_own_fields(self) -> None:
        """A field that only some clients send can be referred to."""
        template = Template({"session": "{{@.session}}"}, "request")
        self.assertEqual(template.fill(Context({**CALL, "session": 5})), {"session": 5})
        self.assertEqual(template.fill(Context(CALL)), {})

    def test_helpers_used(self) -> None:
        """Only helpers that are used are computed."""
        self.assertEqual(Template({"q": "{{history}}", "m": "{{model}}"}, "r").helpers, {"history"})
        self.assertEqual(Context(CALL, frozenset()).keys(), CALL.keys())

    def test_quote(self) -> None:
        """Values filled into a string can be quoted."""
        template = TextTemplate("/{{model}}?x={{user_id}}", "url")
        context = Context({"model": "a/b?c", "user": "ü"})
        self.assertEqual(template.text(context, lambda text: f"<{text}>"), "/<a/b?c>?x=<ü>")

    @given(st.text(max_size=20))
    def test_any_text(self, text: str) -> None:
        """Any string is a template or a one-line error; one without braces is unchanged."""
        try:
            template = Template(text, "request")
        except TemplateError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
            return
        filled = template.fill(Context(CALL))
        if "{{" not in text:
            self.assertEqual(filled, text)
