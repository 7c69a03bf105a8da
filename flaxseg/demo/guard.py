"""What every answer of the server goes through: who may ask, and what browsers may do with it."""

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer."""


class Guard:
    """Refuses what does not come from the page, and adds `HEADERS`.

    A page of another site can make a browser ask, as its own or under a name of its own that leads
    to this computer (DNS rebinding): neither reaches the application.
    """

    def __init__(self, app: ASGIApp, host: str):
        """Takes the application and the address that it listens at.

        Args:
            app: the application.
            host: name or address. Of a loopback one the names of this computer are the only ones
                by which it may be asked; of another one any.
        """
        self._app = app
        self._names = {"localhost", "127.0.0.1", "::1", host} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets the application answer."""
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(headers)
        app = self._app if refusal is None else JSONResponse({"error": refusal}, 403)
        await app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> str | None:
        name = _without_port(headers.get("host", ""))
        if self._names is not None and name not in self._names:
            return f"asked by the name {name!r}: use one of {', '.join(sorted(self._names))}"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "asked by a page of another site: open this one"
        return None


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches a name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_port(host: str) -> str:
    """The name in a Host header, such as `name:8000` or `[::1]:8000`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
