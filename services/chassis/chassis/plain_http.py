"""HTTP/1.1 as the services speak it: offers of other protocols are passed over, and long answers are handed over."""

import asyncio
from collections.abc import Callable

import httptools
from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from contracts import problems
from contracts.failures import preferred_language

TAKE_OVER = "sori.take-over"
"""The name of an extension of ASGI's scope: its value is a TakeOver."""
TakeOver = Callable[[asyncio.Protocol], asyncio.Transport | None]
"""Gives a protocol the connection of a response that has begun, to write its body in chunks (RFC 9112, section 7.1).

The application must then return; the protocol closes the transport after the last chunk. None when the client has gone.
"""


class PlainHttp(HttpToolsProtocol):
    """Uvicorn's protocol, which passes over offers of another one, and lets go of a connection when asked to.

    A response that goes on for minutes would keep all that its request was served with: some ten objects and a task.

    httptools takes whatever follows the head of a request with `Upgrade` for the other protocol, and so the body of an
    upload by Java's HttpClient, which offers h2c. A server may ignore the offer (RFC 9110, section 7.8): such a request
    is parsed anew, without it.
    """

    _without_offer: bytes | None = None

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self.scope["extensions"] = {TAKE_OVER: self._hand_over}  # type: ignore[dict-item] # a callable, no dict

    def on_headers_complete(self) -> None:
        """Begin the request, unless it is to be parsed anew."""
        if self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers):
            self._without_offer = self._head()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request, unless it is to be parsed anew."""
        if self._without_offer is None:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._unset_keepalive_if_required()
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self._without_offer is None:  # a CONNECT, which no service takes
                    return
                data = self._without_offer + data[offer.args[0] :]
                self._without_offer = None
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            else:
                return

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words, in its own form
        """Answer what is no HTTP with a problem, in the language of the headers that could be read, and close."""
        language = preferred_language(Headers(raw=self.headers or []).get("accept-language"))
        body = problems.BAD_REQUEST.body(language).model_dump_json().encode()
        own = [(b"content-type", problems.CONTENT_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        lines = [b"%b: %b\r\n" % header for header in [*self.server_state.default_headers, *own]]
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%bconnection: close\r\n\r\n%b" % (b"".join(lines), body))
        self.transport.close()

    def _hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        # A request that came behind this one without waiting for its answer cannot be answered any more.
        if self.cycle.disconnected or self.transport.is_closing() or self.pipeline:
            return None
        transport = self.transport
        self.flow.resume_reading()  # or the end of the connection would not be noticed
        transport.set_protocol(protocol)
        self.connections.discard(self)
        self.cycle.response_complete = True  # as far as uvicorn is concerned
        # They refer to one another, and would stay until a garbage collection.
        self.parser = self.cycle = self.scope = None  # type: ignore[assignment] # as uvicorn does when a connection is lost
        return transport

    def _head(self) -> bytes:
        """Return the head of the request, without its offer."""
        version = self.parser.get_http_version().encode()
        kept = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(kept))
