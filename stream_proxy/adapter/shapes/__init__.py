"""Shapes of payloads: where services put text, reasoning, tool calls, ends, usage and errors.

``vendors`` is a table of services; to teach the adapter another one, add a row to ``model_apis`` or
``platforms``. ``search`` looks for the text by that table, else where services usually put it; ``signals``
looks for everything else. Each function takes one payload, a JSON value; ``None`` means: not there.
"""
