"""Texts that grow, are repeated, rewritten or replaced, and the blanks before them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.adapter.texts import GrowingText, ResponseText
from stream_proxy.json_steps import done
from tests.adapter.test_translation import Answer, sse

DIFY = {"task_id": "t", "message_id": "m", "conversation_id": "c"}


def dify(*events: tuple[str, str]) -> bytes:
    """Return events of Dify's with these answers."""
    return sse(*({**DIFY, "event": event, "answer": answer} for event, answer in events))


class CumulativeTests(TestCase):
    """Texts that begin with all that came before."""

    def both(self, body: bytes, **keys: Any) -> tuple[Answer, Answer]:
        """Return the answer in a stream, and the one without."""
        return Answer(body, **keys), Answer(body, stream=False, **keys)

    def test_found_out(self) -> None:
        """What begins with all that came before is the whole text so far."""
        for texts in (
            ["1", "12", "123"],
            ["Hi", "Hi there", "Hi there", "Hi there."],
            ["我", "我是", "我是AI"],
        ):
            for body in (sse(*({"answer": text} for text in texts)), sse(*texts)):
                for answer in self.both(body):
                    self.assertEqual((answer.text, answer.error), (texts[-1], None))

    def test_pieces(self) -> None:
        """Pieces of services that send pieces are not taken for more; nor are line ends, nor with a mode."""
        for wrap in (
            lambda text: {"choices": [{"delta": {"content": text}}]},
            lambda text: {"candidates": [{"content": {"parts": [{"text": text}]}}]},
            lambda text: {"response": text, "done": False},
            lambda text: {"type": "text-delta", "delta": text},
            lambda text: {"type": "token", "content": text},
            lambda text: {**DIFY, "event": "message", "answer": text},
        ):
            last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "done": True}
            self.assertEqual(Answer(sse(wrap("ha"), wrap("haha"), last)).text, "hahaha")
        self.assertEqual(Answer(sse({"text": "\n"}, {"text": "\n\n"})).text, "\n\n\n")
        self.assertEqual(Answer(sse({"text": "ha"}, {"text": "haha"}), mode="delta").text, "hahaha")
        self.assertEqual(Answer(sse({"text": "ha"}, {"text": "haha"}), content="text").text, "hahaha")

    def test_rewritten(self) -> None:
        """Of a rewritten text a call without a stream gets the last version, and a stream an error."""
        said = ["The sky", "The sky is blue", "The sky is blue. It", "The sky is blue ##0$$. It"]
        for keys in ({}, {"mode": "cumulative"}, {"mode": "cumulative", "content": "answer"}):
            flow, whole = self.both(sse(*({"answer": text} for text in said)), **keys)
            self.assertEqual((whole.text, whole.error), (said[-1], None))
            assert flow.error is not None
            self.assertEqual(flow.text, said[-2])
            self.assertIn("changed text that it had sent", flow.error.message)

    def test_messages(self) -> None:
        """LangGraph's messages grow one by one, each with an id, and may come once more."""

        def partial(identity: str, text: str) -> bytes:
            return sse([{"type": "ai", "id": identity, "content": text}], event="messages/partial")

        body = partial("a", "Hi") + partial("a", "Hi. ") + partial("b", "It") + partial("b", "It is")
        body += partial("a", "Hi. ") + partial("b", "It is")
        for answer in self.both(body):
            self.assertEqual((answer.text, answer.error), ("Hi. It is", None))

    def test_tokens_and_whole(self) -> None:
        """Langflow sends tokens and then the message, or only the message."""
        tokens = [{"event": "token", "data": {"id": "m", "chunk": text}} for text in ("Hi", " you")]
        asked = {"event": "add_message", "data": {"id": "u", "text": "Q", "sender": "User"}}
        whole = {"event": "add_message", "data": {"id": "m", "text": "Hi you", "sender": "Machine"}}
        for events in ([asked, *tokens, whole], [asked, whole], [asked, *tokens], [whole, whole]):
            for answer in self.both(sse(*events)):
                self.assertEqual((answer.text, answer.error), ("Hi you", None))

    @given(st.lists(st.tuples(st.booleans(), st.text(alphabet="ab\ufffd", max_size=4)), max_size=12))
    def test_any_growth(self, steps: list[tuple[bool, str]]) -> None:
        """Pieces and wholes in any order make the same text, sent or held."""
        streamed, held = ResponseText("text"), ResponseText("text", 1000)
        text, sent = "", ""
        for is_whole, more in steps:
            more = more.replace("\ufffd", "c") if not is_whole else more
            text = text.rstrip("\ufffd") + more
            for each in (streamed, held):
                new = done(each.whole(text, "m") if is_whole else each.piece(more, "m"))
                sent += new if each is streamed else ""
        self.assertEqual(sent + "".join(streamed.rest()), "".join(held.rest()))

    def test_linear(self) -> None:
        """Pieces and short wholes in turn do not join what came again and again."""
        growing = GrowingText("text")
        for _ in range(1000):
            growing.append("a")
            self.assertEqual(growing.added("a"), "")
        self.assertEqual(len(growing._pieces), 999)
        self.assertEqual("".join(growing.parts()), "a" * 1000)


class ReplacementTests(TestCase):
    """Texts instead of all that came before."""

    def test_replaced(self) -> None:
        """A call without a stream has only the replacement; a stream ends with an error that says so."""
        body = dify(
            ("message", "The secret "), ("message", "is 1"), ("message_replace", "No."), ("message_end", "")
        )
        whole = Answer(body, stream=False)
        self.assertEqual((whole.text, whole.error), ("No.", None))
        flow = Answer(body)
        assert flow.error is not None
        self.assertEqual((flow.text, flow.complete), ("The secret is 1", False))
        self.assertIn("replaced text that had been sent", flow.error.message)
        self.assertNotIn("No.", flow.error.message)

    def test_nothing_to_take_back(self) -> None:
        """A replacement before any text, or that begins with all of it, is sent: Dify sends such too."""
        for before, instead in (([], "No."), (["A ", "B"], "A B"), (["A ", "B"], "A B C")):
            body = dify(
                *(("message", text) for text in before), ("message_replace", instead), ("message_end", "")
            )
            for stream in (True, False):
                answer = Answer(body, stream=stream)
                self.assertEqual((answer.text, answer.error), (instead, None))

    def test_expression(self) -> None:
        """``replace`` selects the replacement; text may follow it."""
        body = sse({"t": "A"}, {"instead": "B"}, {"t": "C"})
        answer = Answer(body, stream=False, content="t", replace="instead")
        self.assertEqual((answer.text, answer.error), ("BC", None))
        self.assertIsNotNone(Answer(body, content="t", replace="instead").error)
        off = dify(("message", "A"), ("message_replace", "B"), ("message_end", ""))
        self.assertEqual(Answer(off, replace="`null`").text, "A")

    def test_bound(self) -> None:
        """What is held for a call without a stream is bounded."""
        for keys in ({}, {"mode": "cumulative"}):
            pieces = ["abcdefghij" * (number if keys else 1) for number in range(1, 30)]
            answer = Answer(
                sse(*({"text": text} for text in pieces)),
                stream=False,
                max_bytes=200,
                max_event_bytes=1_000,
                **keys,
            )
            assert answer.error is not None
            self.assertIn("maxResponseBytes", answer.error.message)


class BlankTests(TestCase):
    """Blanks after ``data:``."""

    BODY = b"data:La\n\ndata: frase\n\ndata: bella\n\ndata:.\n\n"

    def test_found_out(self) -> None:
        """If the first data has no blank before it, blanks belong to the text."""
        for keys in ({}, {"payload": "text"}, {"keep_blanks": True}):
            for size in (1, 5, 100):
                reads = [self.BODY[at : at + size] for at in range(0, len(self.BODY), size)]
                self.assertEqual(Answer(*reads, **keys).text, "La frase bella.", keys)
        self.assertEqual(Answer(self.BODY, keep_blanks=False).text, "Lafrasebella.")
        late = b": hi\n\ndata:\n\nid: 1\n" + self.BODY
        self.assertEqual(Answer(late, payload="text").text, "La frase bella.")

    def test_standard(self) -> None:
        """Events as the standard has them lose one blank, unless ``keepBlanks`` keeps it."""
        body = b"data: La\n\ndata:  frase\n\ndata:\ndata:\n\n"
        self.assertEqual(Answer(body).text, "La frase\n")
        self.assertEqual(Answer(body, payload="text", keep_blanks=True).text, " La  frase\n")

    def test_json(self) -> None:
        """Blanks before JSON mean nothing."""
        body = b'data:{"text": "A"}\n\ndata: {"text": " B"}\n\ndata: [DONE]\n\n'
        for keys in ({}, {"keep_blanks": True}):
            answer = Answer(body, **keys)
            self.assertEqual((answer.text, answer.complete), ("A B", True))
