"""Clients of a running server, synchronous and asynchronous.

Both follow `_attempts`, which decides when a call is tried again. They differ in how they send and how they wait.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Union

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("canet's clients need httpx: pip install 'canet[client]'", name="httpx") from error

from ._arguments import integer, item_id, item_ids, number, plain, text

# Statuses of a server that may answer the same request soon: overloaded, starting or draining, and a proxy without a server.
_TRIED_AGAIN = (429, 502, 503)

# Seconds before the second attempt if the server does not name a time. Each further attempt waits twice as long.
_FIRST_WAIT = 0.1

# Calls of one `AsyncClient` at a time. Further ones wait for a place before httpx sees them, because httpx looks at every
# waiting call whenever one ends.
_CALLS_AT_ONCE = 64

# Connections stay open for this many seconds between calls.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=30.0)


@dataclass(frozen=True)
class RankedItem:
    """An item of an answer."""

    item: str
    score: float
    title: str | None = None


@dataclass(frozen=True)
class RouteTaken:
    """The route that ran and why. The name is `None` if the most popular items were recommended."""

    name: str | None
    reason: str
    confidence: float | None


@dataclass(frozen=True)
class Compute:
    """FLOPs of an answer: spent, what the full model would have spent, the saved share, and what a cache saved besides."""

    flops: int
    full_flops: int
    saved: float
    reused: int


@dataclass(frozen=True)
class ModelVersion:
    """The model that answered."""

    name: str
    version: int


@dataclass(frozen=True)
class HistoryUsed:
    """How many items the model read, and which ids it does not know."""

    used: int
    unknown: list[str]


@dataclass(frozen=True)
class Answer:
    """The answer to one request, the best item first."""

    items: list[RankedItem]
    route: RouteTaken
    compute: Compute
    model: ModelVersion
    history: HistoryUsed

    @classmethod
    def of(cls, json: Mapping[str, Any]) -> Answer:
        """Reads the server's JSON. Fields that this version does not know are ignored."""
        try:
            return cls(
                [_read(RankedItem, item) for item in json["items"]],
                _read(RouteTaken, json["route"]),
                _read(Compute, json["compute"]),
                _read(ModelVersion, json["model"]),
                _read(HistoryUsed, json["history"]),
            )
        except (KeyError, TypeError) as error:
            raise ClientError("the response is no answer of a canet server") from error


def _read(kind: Any, json: Mapping[str, Any]) -> Any:
    return kind(**{name: json[name] for name in kind.__dataclass_fields__ if name in json})


class ClientError(Exception):
    """A call to a server failed."""


class ConnectionFailed(ClientError):
    """No response arrived: the server cannot be reached, or did not answer in time."""


class Refused(ClientError):
    """The server answered with an error."""

    def __init__(self, status: int, code: str, detail: str, field: str | None, retry_after: float | None) -> None:
        super().__init__(f"{status} {code}{f', field `{field}`' if field else ''}: {detail}")
        self.status = status
        """HTTP status."""
        self.code = code
        """Stable name of the kind of error, as `overloaded`."""
        self.detail = detail
        """What is wrong, for a person."""
        self.field = field
        """The field of the request that is wrong, if one is."""
        self.retry_after = retry_after
        """Seconds after which the server asks to try again, if it says so. In a batch, the response says it for all of its rows."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (self.status, self.code, self.detail, self.field, self.retry_after)

    @classmethod
    def of(cls, problem: Mapping[str, Any], status: int, retry_after: float | None = None) -> Refused:
        """Reads the body of an error. It may be a proxy's, in which anything may stand."""
        detail = str(problem.get("detail", "the response gives no reason, so this may be no canet server"))
        code, field = problem.get("code"), problem.get("field")
        return cls(
            status, code if isinstance(code, str) else "unknown", detail, field if isinstance(field, str) else None, retry_after
        )


@dataclass(frozen=True)
class _Send:
    """Send the request, and give what came: a response or an error of the transport."""

    timeout: float


@dataclass(frozen=True)
class _Wait:
    seconds: float


_Step = Union[_Send, _Wait]


def _attempts(timeout: float, retries: int) -> Generator[_Step, Any, httpx.Response]:
    """The steps of a call, with the response at the end.

    The call is tried again after an error of the connection and after the statuses 429, 502 and 503: after the time that
    `Retry-After` names, or else after a random, growing time. It is not tried again if the time would end before.
    """
    end = time.monotonic() + timeout
    for attempt in range(retries + 1):
        outcome = yield _Send(max(end - time.monotonic(), 0.001))
        is_response = isinstance(outcome, httpx.Response)
        if is_response and outcome.status_code not in _TRIED_AGAIN:
            return outcome
        asked = _retry_after(outcome) if is_response else None
        # Random, so that clients that failed together do not come back together.
        wait = _FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0) if asked is None else asked
        if attempt == retries or time.monotonic() + wait >= end:
            break
        yield _Wait(wait)
    if is_response:
        return outcome
    reason = str(outcome) or type(outcome).__name__
    advice = "give its authority as `ssl_context`" if "CERTIFICATE" in reason else "is the server running?"
    raise ConnectionFailed(f"{outcome.request.url}: {reason}; {advice}") from outcome


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the header names, as a number or as a date."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _json(response: httpx.Response) -> Any:
    """The body of a response, or its error."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise Refused.of(body if isinstance(body, dict) else {}, response.status_code, _retry_after(response))


# How the fields of a request become JSON. Those that are not here are sent as they are.
_FIELDS = {
    "history": item_ids,
    "exclude": item_ids,
    "candidates": item_ids,
    "k": integer,
    "history_start": integer,
    "timeout_ms": integer,
    "budget": number,
    "route": text,
    "user": item_id,
    "filter": plain,
    "max_per": plain,
}


def _request(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request. The server chooses the fields that are `None`."""
    if not isinstance(fields, Mapping):
        raise TypeError(f"a request is {type(fields).__name__}, not a mapping")
    if fields.get("history") is None:
        raise ValueError("a request has no `history`")
    given = ((name, value) for name, value in fields.items() if value is not None)
    return {name: _FIELDS[name](name, value) if name in _FIELDS else value for name, value in given}


def _results(response: httpx.Response) -> list[Answer | Refused]:
    """The answers and errors of a batch."""
    results, retry_after = _json(response).get("results"), _retry_after(response)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ClientError("the response is no answer of a canet server")
    return [
        Answer.of(result)
        if "items" in result
        # The header is about the rows that may be sent again.
        else Refused.of(result, status, retry_after if status in _TRIED_AGAIN else None)
        for result in results
        for status in [_status(result)]
    ]


def _status(row: Mapping[str, Any]) -> int:
    """The status of a row of a batch that has an error."""
    status = row.get("status")
    return status if type(status) is int else 500


class _Settings:
    """What both clients are made from."""

    _transport: Any
    _http: Any

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 15.0,
        retries: int = 2,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """A client of the server at `url`, as `http://HOST:PORT` or `https://HOST/PREFIX`.

        `timeout` is the time in seconds for a call with its retries. `AsyncClient` keeps it. `Client` ends no attempt as a whole:
        waiting for a connection, connecting, and each wait to send or receive may take as long, and name resolution has no limit.
        `retries` is how often a call is tried again if the server cannot be reached, is overloaded or is not ready. `ssl_context`
        has private authorities or a client certificate.
        """
        if not 0 < timeout < math.inf:
            raise ValueError(f"`timeout` is {timeout}: it must be above 0 and finite")
        if retries < 0:
            raise ValueError(f"`retries` is {retries}: it must be at least 0")
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"`url` is {url!r}: give it as http://HOST:PORT or https://HOST/PREFIX")
        # A key that is read from a file often ends with a line break.
        key = None if api_key is None else api_key.strip()
        if key is not None and not (key.isascii() and key.isprintable() and key):
            # Without its value, which belongs into no log.
            raise ValueError("`api_key` is empty or has characters that a header cannot have")
        self._timeout, self._retries = timeout, retries
        self._http = self._transport(
            base_url=url.rstrip("/"),
            headers={} if key is None else {"x-api-key": key},
            limits=_LIMITS,
            # A redirect would send the request and the API key to another server.
            follow_redirects=False,
            verify=True if ssl_context is None else ssl_context,
        )


class Client(_Settings):
    """A client that keeps its connections. Threads may share it.

    Every method raises `Refused` if the server answers with an error, and `ConnectionFailed` if no response arrives in time.
    """

    _transport = httpx.Client
    _http: httpx.Client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        steps = _attempts(self._timeout, self._retries)
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, _Wait):
                outcome = time.sleep(step.seconds)
                continue
            try:
                outcome = self._http.request(method, path, timeout=step.timeout, **request)
            except httpx.RequestError as error:
                outcome = error

    def recommend(
        self,
        history: Iterable[str | int],
        *,
        k: int | None = None,
        exclude_seen: bool | None = None,
        exclude: Iterable[str | int] | None = None,
        candidates: Iterable[str | int] | None = None,
        route: str | None = None,
        budget: float | None = None,
        filter: Mapping[str, Any] | None = None,
        max_per: Mapping[str, int] | None = None,
        user: str | int | None = None,
        history_start: int | None = None,
        timeout_ms: int | None = None,
    ) -> Answer:
        """The best items after a history, oldest item first. The server chooses what is not given."""
        fields = {name: value for name, value in locals().items() if name != "self"}
        return Answer.of(_json(self._call("POST", "/recommend", json=_request(fields))))

    def recommend_batch(self, requests: Iterable[Mapping[str, Any]]) -> list[Answer | Refused]:
        """Answers many requests, each a mapping with `history` and the other arguments of `recommend`.

        A request that the server refuses has its error in place of an answer.
        """
        return _results(self._call("POST", "/recommend/batch", json=_batch(requests)))

    def model(self) -> dict[str, Any]:
        """`GET /model`: the model that serves."""
        return _json(self._call("GET", "/model"))

    def routes(self) -> dict[str, Any]:
        """`GET /routes`: every route with its cost, traffic and accuracy."""
        return _json(self._call("GET", "/routes"))

    def is_ready(self) -> bool:
        """Whether the server can answer now."""
        try:
            return self._http.get("/readyz", timeout=self._timeout).is_success
        except httpx.RequestError:
            return False


def _batch(requests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {"requests": [_request(request) for request in requests]}


class AsyncClient(_Settings):
    """`Client` for asyncio. Its methods and errors are the same.

    It sends 64 calls at a time. Further ones wait, and their `timeout` runs meanwhile.
    """

    _transport = httpx.AsyncClient
    _http: httpx.AsyncClient

    @cached_property
    def _places(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(_CALLS_AT_ONCE)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        steps = _attempts(self._timeout, self._retries)
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, _Wait):
                outcome = await asyncio.sleep(step.seconds)
                continue
            try:
                outcome = await self._send(step.timeout, method, path, **request)
            except httpx.RequestError as error:
                outcome = error

    async def _send(self, seconds: float, method: str, path: str, **request: Any) -> httpx.Response:
        """Sends a request, with one limit for all of it. httpx limits each of connecting, sending and receiving by itself."""
        sent = self._http.build_request(method, path, timeout=None, **request)

        async def send_in_turn() -> httpx.Response:
            async with self._places:
                return await self._http.send(sent)

        try:
            return await asyncio.wait_for(send_in_turn(), seconds)
        # Before Python 3.11 it is another class than `TimeoutError`.
        except asyncio.TimeoutError:
            raise httpx.TimeoutException("no whole response arrived in time", request=sent) from None

    async def recommend(
        self,
        history: Iterable[str | int],
        *,
        k: int | None = None,
        exclude_seen: bool | None = None,
        exclude: Iterable[str | int] | None = None,
        candidates: Iterable[str | int] | None = None,
        route: str | None = None,
        budget: float | None = None,
        filter: Mapping[str, Any] | None = None,
        max_per: Mapping[str, int] | None = None,
        user: str | int | None = None,
        history_start: int | None = None,
        timeout_ms: int | None = None,
    ) -> Answer:
        """The best items after a history, oldest item first. The server chooses what is not given."""
        fields = {name: value for name, value in locals().items() if name != "self"}
        return Answer.of(_json(await self._call("POST", "/recommend", json=_request(fields))))

    async def recommend_batch(self, requests: Iterable[Mapping[str, Any]]) -> list[Answer | Refused]:
        """Answers many requests, each a mapping with `history` and the other arguments of `recommend`.

        A request that the server refuses has its error in place of an answer.
        """
        return _results(await self._call("POST", "/recommend/batch", json=_batch(requests)))

    async def model(self) -> dict[str, Any]:
        """`GET /model`: the model that serves."""
        return _json(await self._call("GET", "/model"))

    async def routes(self) -> dict[str, Any]:
        """`GET /routes`: every route with its cost, traffic and accuracy."""
        return _json(await self._call("GET", "/routes"))

    async def is_ready(self) -> bool:
        """Whether the server can answer now."""
        try:
            return (await self._send(self._timeout, "GET", "/readyz")).is_success
        except httpx.RequestError:
            return False
