"""How a gateway that stops takes leave of the edge's connections."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.stopping import Stopping


class LastAnswers:
    """Ends the edge's connections with an answer on each: closing an idle one could lose a request."""

    def __init__(self, app: ASGIApp, stopping: Stopping) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stopping.has_begun:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_last if scope["type"] == "http" else send)
