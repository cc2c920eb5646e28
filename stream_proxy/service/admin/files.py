"""Page of the admin port: its files, and the exchange of a key for a cookie."""

from __future__ import annotations

from importlib.resources import files
from urllib.parse import parse_qsl

from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader
from stream_proxy.service.admin.access import CHALLENGE, Guard
from stream_proxy.service.admin.router import AdminResource, Visit

HTML = b"text/html; charset=utf-8"
#: The files beside the page itself. Those that the login form needs are for everyone.
_FILES = (
    ("page.js", b"text/javascript; charset=utf-8", Guard.KEY),
    ("page.css", b"text/css; charset=utf-8", Guard.PLACE),
    ("icon.svg", b"image/svg+xml", Guard.PLACE),
)
_FOLDER = "stream_proxy.service.admin"


def serve_page(resource: AdminResource) -> None:
    """Serve ``/`` with what belongs to it, ``/login`` and ``/logout``."""
    _serve_file(resource, "/", "index.html", HTML, Guard.KEY)
    for name, content_type, guard in _FILES:
        _serve_file(resource, f"/{name}", name, content_type, guard)
    form = read_file("login.html")

    def unauthorized(visit: Visit, error: APIError) -> None:
        accepted = [value for name, value in visit.headers if name.lower() == b"accept"]
        if resource.access.has_keys and any(b"text/html" in value for value in accepted):
            visit.send(form, HTML, 401)
        else:
            visit.fail(error, CHALLENGE)

    def log_in(visit: Visit) -> None:
        key = _form_value(visit.body, b"key")
        cookie = resource.access.exchange(key)
        if cookie is None:
            visit.send(form.replace(b" hidden", b"", 1), HTML, 401)
        else:
            _redirect(visit, [(b"Set-Cookie", cookie)])

    resource.unauthorized = unauthorized
    resource.post("/login", log_in, Guard.PLACE)
    resource.post("/logout", lambda visit: _redirect(visit, [(b"Set-Cookie", resource.access.forget())]))


def _serve_file(resource: AdminResource, path: str, name: str, content_type: bytes, guard: Guard) -> None:
    body = read_file(name)
    resource.get(path, lambda visit: visit.send(body, content_type), guard)


def read_file(name: str) -> bytes:
    """Return a file of the page."""
    return files(_FOLDER).joinpath("page", name).read_bytes()


def _form_value(body: bytes, wanted: bytes) -> bytes:
    """Return a member of a form, which has few; empty if there is none."""
    try:
        members = parse_qsl(body, max_num_fields=4)
    except ValueError:
        return b""
    return next((value.strip() for name, value in members if name == wanted), b"")


def _redirect(visit: Visit, headers: list[RawHeader]) -> None:
    visit.send(b"", HTML, 303, [(b"Location", b"/"), *headers])
