"""Connections that cannot be held open for nothing: whoever keeps the server waiting is dropped in the end."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol

Wait = Literal["head", "body", "reply"]


class Limits(NamedTuple):
    """What clients may take up.

    Attributes:
        connections: at a time; beyond, whoever has kept the server waiting longest gives way to a new one.
        head, body, reply: seconds to send a request's headers, to send its body, and to take the answer.
    """

    connections: int = 32
    head: float = 10.0
    body: float = 300.0
    reply: float = 300.0


class Connection(H11Protocol):
    """uvicorn's connection, which by itself waits for ever for a whole request and for its answer to be taken."""

    limits = Limits()
    _wait: Wait | None = None
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, limits: Limits) -> type[Connection]:
        """This class with other limits; uvicorn makes the objects."""
        return type(cls.__name__, (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a client in, in another's place if there is no room."""
        super().connection_made(transport)
        self._look()
        if len(self.connections) > self.limits.connections:
            others = [c for c in self.connections if isinstance(c, Connection) and c._wait and c is not self]
            if others:
                min(others, key=lambda c: c._since)._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._set_timer(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._look()

    def shutdown(self) -> None:
        """End with the server: at once, but for an answer that is under way."""
        if self._wait in ("head", "body"):
            self._hang_up()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._look()

    def _look(self) -> None:
        """Start the clock anew if what is waited for has changed."""
        wait = self._waits_for()
        if wait != self._wait:
            self._set_timer(wait)

    def _waits_for(self) -> Wait | None:
        cycle: Any = self.cycle  # None before the first request
        if self.flow.write_paused:
            return "reply"
        if cycle is None or cycle.response_complete:
            return "head"
        return "body" if cycle.more_body else None

    def _set_timer(self, wait: Wait | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._wait, self._since = wait, self.loop.time()
        self._timer = self.loop.call_later(getattr(self.limits, wait), self._hang_up) if wait else None

    def _hang_up(self) -> None:
        self.connections.discard(self)
        self.transport.abort()
