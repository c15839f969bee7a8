"""`canet.Client` and `canet.AsyncClient` against a server, and against one that fails."""

import asyncio
import json
import pickle
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import pytest

import canet
from conftest import MODEL_VERSION

ANSWER = {
    "items": [{"item": "7", "score": 1.5, "later": "field"}],
    "route": {"name": "h64-l2-e64", "reason": "router", "confidence": 0.5},
    "compute": {"flops": 1, "full_flops": 2, "saved": 0.5, "reused": 0},
    "model": {"name": "m", "version": 1},
    "history": {"used": 1, "unknown": []},
}
OVERLOADED = {"status": 429, "code": "overloaded", "detail": "the queue is full"}


class Blocking:
    """The asynchronous client with the synchronous one's methods, so that each test runs both."""

    def __init__(self, *settings, **named):
        self.runner = asyncio.Runner()
        self.client = self.runner.run(self.made(*settings, **named))

    async def made(self, *settings, **named):
        return canet.AsyncClient(*settings, **named)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.run(self.client.close())
        self.runner.close()

    def __getattr__(self, name):
        return lambda *arguments, **named: self.runner.run(getattr(self.client, name)(*arguments, **named))


def ranked(answer):
    """The items with their scores. JSON has the shortest digits of a float32."""
    return [(item.item, float(numpy.float32(item.score))) for item in answer.items]


@pytest.fixture(params=[canet.Client, Blocking], ids=["sync", "async"])
def client(request):
    return request.param


@contextmanager
def failing(*responses):
    """A server that gives these responses in turn: a status, headers and a JSON document each. Yields its URL, and a list that
    gets the client's address and the headers of each call."""
    left, calls = list(responses), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            calls.append((self.client_address, self.headers))
            status, headers, document = left.pop(0)
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_answers_are_those_of_the_model(client, server, model):
    with client(server) as asked:
        found = model.recommend([["50", "181", "258"]], k=5)
        for history in (["50", "181", "258"], [50, 181, 258], numpy.array([50, 181, 258]), (id for id in ["50", "181", "258"])):
            answer = asked.recommend(history, k=5)
            assert ranked(answer) == found[0]
            assert (answer.route.name, answer.route.reason) == (found.routes[0], "fixed")
        assert (answer.model.name, answer.model.version, answer.history.used) == ("ml-100k", MODEL_VERSION, 3)
        assert answer.compute.full_flops > answer.compute.flops > 0
        answer = asked.recommend([50, "no such item"], k=3, route="full", exclude=[181], exclude_seen=False, user=7, timeout_ms=9000)
        expected = model.recommend([["50"]], k=3, route="full", exclude=["181"], exclude_seen=False)
        assert ranked(answer) == expected[0]
        assert answer.history.unknown == ["no such item"] and answer.route.reason == "override"
        assert [item.item for item in asked.recommend([50], candidates=["1", 2]).items] != []
        assert asked.model()["version"] == MODEL_VERSION and len(asked.routes()["routes"]) == 8 and asked.is_ready()


def test_batches_have_an_answer_or_an_error_for_each_request(client, server, model):
    with client(server) as asked:
        good, bad = asked.recommend_batch([{"history": [50], "k": 2}, {"history": ["50"], "k": 5000}])
    assert ranked(good) == model.recommend([["50"]], k=2)[0]
    assert isinstance(bad, canet.Refused) and (bad.status, bad.code, bad.field) == (422, "invalid_request", "k")


def test_refused_rows_of_a_batch_say_when_to_try_again(client):
    wrong = {"status": 422, "code": "invalid_request", "detail": "no", "field": "k"}
    results = [ANSWER, OVERLOADED, {**OVERLOADED, "status": 503}, wrong]
    with failing((200, {"retry-after": "3"}, {"results": results})) as (url, _), client(url) as asked:
        answer, *refused = asked.recommend_batch([{"history": ["1"]}] * 4)
    assert answer.items == [canet.RankedItem("7", 1.5)]
    assert [(error.status, error.retry_after) for error in refused] == [(429, 3), (503, 3), (422, None)]


def test_errors_of_a_request_are_raised_with_their_field(client, server):
    with client(server) as asked, pytest.raises(canet.Refused) as refused:
        asked.recommend(["50"], route="h5")
    error = refused.value
    assert (error.status, error.code, error.field) == (422, "invalid_request", "route")
    assert str(error).startswith('422 invalid_request, field `route`: there is no route "h5"')
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    wrong = [
        ({"history": [1.5]}, TypeError, "`history` has 1.5 of type float: ids are strings or integers"),
        ({"history": [True]}, TypeError, "`history` has True"),
        ({"history": 50}, TypeError, "`history` is int, not a list"),
        ({"history": ["50"], "k": 1.5}, TypeError, "`k` is float, not an integer"),
        ({"history": ["50"], "budget": "0.3"}, TypeError, "`budget` is str, not a number"),
        ({"history": ["50"], "filter": {"category": object()}}, TypeError, "`filter` has a value of type object"),
    ]
    for request, kind, words in wrong:
        with client(server) as asked, pytest.raises(kind, match=words):
            asked.recommend(**request)
    with client(server) as asked, pytest.raises(ValueError, match="a request has no `history`"):
        asked.recommend_batch([{"k": 3}])


def test_numbers_of_numpy_are_sent_as_numbers(client, server):
    with client(server) as asked:
        plain = asked.recommend([50, 181], k=3, budget=0.5, user=7, timeout_ms=9000)
        typed = asked.recommend(
            numpy.array([50, 181]), k=numpy.int64(3), budget=numpy.float32(0.5), user=numpy.int32(7), timeout_ms=numpy.int16(9000)
        )
        assert (typed.items, typed.route) == (plain.items, plain.route) and len(plain.items) == 3


def test_a_proxys_error_keeps_the_status_of_the_response(client):
    odd = [(404, {"status": "error", "message": "no route"}), (403, {"status": 200, "code": 7, "field": ["a"], "detail": None})]
    for status, document in odd:
        with failing((status, {}, document)) as (url, _), client(url) as asked, pytest.raises(canet.Refused) as refused:
            asked.recommend(["1"])
        assert (refused.value.status, refused.value.code, refused.value.field) == (status, "unknown", None)


def test_many_calls_at_once_are_all_answered(server):
    async def ask():
        async with canet.AsyncClient(server) as asked:
            return await asyncio.gather(*(asked.recommend(["50"], route="smallest") for _ in range(500)))

    assert len({answer.items[0].item for answer in asyncio.run(ask())}) == 1


def test_a_text_in_place_of_a_list_is_refused(client, server):
    for request in [{"history": "50"}, {"history": ["50"], "exclude": "181"}]:
        with client(server) as asked, pytest.raises(TypeError, match="is a text: give a list"):
            asked.recommend(**request)


def test_an_overloaded_server_is_asked_again_on_the_same_connection(client):
    again = [(429, {"retry-after": "0"}, OVERLOADED), (503, {"retry-after": formatdate(0, usegmt=True)}, {}), (200, {}, ANSWER)]
    with failing(*again) as (url, calls), client(url) as asked:
        assert asked.recommend(["1"]).items == [canet.RankedItem("7", 1.5)]
    assert len(calls) == 3 and len({address for address, _ in calls}) == 1


def test_without_a_time_the_client_waits_for_a_time_of_its_own(client):
    began = time.monotonic()
    with failing((502, {}, {}), (200, {}, ANSWER)) as (url, calls), client(url + "/") as asked:
        assert asked.recommend(["1"]).model == canet.ModelVersion("m", 1)
    assert len(calls) == 2
    # The time is drawn from half of the first wait on.
    assert time.monotonic() - began >= 0.5 * canet._client._FIRST_WAIT


def test_the_last_error_is_raised_if_attempts_or_time_end(client):
    refusals = [(429, {"retry-after": "0"}, OVERLOADED)] * 3
    with failing(*refusals) as (url, calls), client(url, retries=2) as asked:
        with pytest.raises(canet.Refused, match="429 overloaded: the queue is full") as refused:
            asked.recommend(["1"])
    assert len(calls) == 3 and refused.value.retry_after == 0
    # The server asks for more time than the call has: no second attempt could be answered in time.
    with failing((429, {"retry-after": "3600"}, OVERLOADED)) as (url, calls), client(url) as asked:
        with pytest.raises(canet.Refused) as refused:
            asked.recommend(["1"])
    assert len(calls) == 1 and refused.value.retry_after == 3600


def test_other_errors_are_not_tried_again(client):
    for status in (400, 500, 504):
        with failing((status, {}, {"detail": "no", "code": "c"})) as (url, calls), client(url) as asked:
            with pytest.raises(canet.Refused, match=f"{status} c: no"):
                asked.recommend(["1"])
        assert len(calls) == 1


def test_a_server_that_is_not_there_or_silent_is_named(client):
    with failing() as (url, _):
        pass
    with client(url, retries=1) as asked:
        with pytest.raises(canet.ConnectionFailed, match=f"{url}/recommend: .*is the server running"):
            asked.recommend(["1"])
        assert not asked.is_ready()
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    with client(f"http://127.0.0.1:{silent.server_port}", timeout=0.05) as asked, pytest.raises(canet.ConnectionFailed):
        asked.recommend(["1"])
    silent.server_close()


def test_a_server_that_goes_on_sending_cannot_hold_an_asynchronous_call():
    over = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.01):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return

        def log_message(self, *_):
            pass

    slow = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=slow.serve_forever)
    thread.start()
    try:
        with Blocking(f"http://127.0.0.1:{slow.server_port}", timeout=0.2) as asked:
            with pytest.raises(canet.ConnectionFailed, match="/recommend: no whole response arrived in time"):
                asked.recommend(["1"])
    finally:
        over.set()
        slow.shutdown()
        slow.server_close()
        thread.join()


def test_the_key_is_sent(client):
    # A key that is read from a file ends with a line break.
    with failing((200, {}, ANSWER)) as (url, calls), client(url, api_key="secret\n") as asked:
        asked.recommend(["1"])
    assert [headers["x-api-key"] for _, headers in calls] == ["secret"]


def test_a_page_of_another_server_is_no_answer(client):
    for document in (["no", "answer"], {"items": [1]}, {}):
        with failing((200, {}, document)) as (url, _), client(url) as asked, pytest.raises(canet.ClientError, match="canet server"):
            asked.recommend(["1"])
    for document in ({}, {"results": None}, {"results": ["1"]}, {"results": [{"items": [1]}]}):
        with failing((200, {}, document)) as (url, _), client(url) as asked, pytest.raises(canet.ClientError, match="canet server"):
            asked.recommend_batch([{"history": ["1"]}])


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="`timeout` is 0: it must be above 0"):
        canet.Client(timeout=0)
    with pytest.raises(ValueError, match="`timeout` is inf: it must be above 0 and finite"):
        canet.Client(timeout=float("inf"))
    for url in ("localhost:8080", "127.0.0.1", "ftp://a", "http://"):
        with pytest.raises(ValueError, match="give it as http://HOST:PORT"):
            canet.Client(url)
    for key in ("", "se\ncret", "sécret"):
        with pytest.raises(ValueError, match="`api_key` is empty or has characters") as refused:
            canet.Client(api_key=key)
        assert "cret" not in str(refused.value)
    with pytest.raises(ValueError, match="`retries` is -1"):
        canet.Client(retries=-1)
