"""`canet.Model` against `canet rank`, a server, and scores that are ranked by hand."""

import _thread
import json
import pickle
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy
import polars
import pyarrow
import pytest
from pyarrow import parquet

import canet
from conftest import MODEL, MODEL_VERSION

# One that the model knows, some that it does not, and none.
ROWS = [["50", "181", "258"], ["50", "no such item", "181"], [], ["1"]]
NUMBERS = [[50, 181, 258], [50, -1, 181], [], [1]]


def test_users_get_what_canet_rank_recommends(model, histories, rank):
    for flags, options in [
        ([], {}),
        (["--k", "3", "--route", "full"], {"k": 3, "route": "full"}),
        (["--k", "25", "--route", "h32-l2-e32", "--include-seen"], {"k": 25, "route": "h32-l2-e32", "exclude_seen": False}),
        (["--flops-budget", "0.9"], {"budget": 0.9}),
    ]:
        lines = rank(histories, *flags)
        found = model.recommend(histories, **options)
        assert len(lines) == len(found) == len(histories)
        for place, line in enumerate(lines):
            items, scores = zip(*((item["item"], numpy.float32(item["score"])) for item in line["items"]))
            assert found.items[place].tolist() == list(items)
            assert found.scores[place].tolist() == list(map(float, scores))
            assert found.routes[place] == line["route"]


def same(found, expected):
    return (
        (found.items == expected.items).all()
        and numpy.array_equal(found.scores, expected.scores, equal_nan=True)
        and (found.routes == expected.routes).all()
    )


def padded(numbers, kind):
    matrix = numpy.full((len(numbers), 4), -1, kind)
    for row, ids in zip(matrix, numbers):
        row[: len(ids)] = ids
    return matrix


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64"])
def test_numpy_of_every_integer_type_is_read(model, kind):
    numbers = [[50, 101], [101, -1, 50], [], [1]]
    expected = model.recommend([[str(number) for number in row] for row in numbers])
    matrix = padded(numbers, kind)
    wide = numpy.repeat(matrix, 2, axis=1)[:, ::2]
    packed = [numpy.array([(0, number) for number in row], [("flag", "i1"), ("item", kind)])["item"] for row in numbers]
    forms = [matrix, numpy.asfortranarray(matrix), wide, [numpy.array(row, kind) for row in numbers], packed]
    if kind != "int8":
        forms.append(padded(numbers, kind).astype(f"u{kind}"))
    for form in forms:
        assert same(model.recommend(form), expected)


def test_no_history_in_any_form_gives_no_row(model):
    none = pyarrow.array([], pyarrow.list_(pyarrow.int64()))
    for nothing in [[], iter([]), (row for row in []), numpy.array([], "int64"), numpy.zeros((0, 3), "int64"), none]:
        assert len(model.recommend(nothing)) == 0
    assert same(model.recommend(ROWS, exclude=iter([])), model.recommend(ROWS))


def test_negative_numbers_are_values_that_are_too_small(model):
    with pytest.raises(ValueError, match="`k` is -1: it must be from 1 to 1682"):
        model.recommend(ROWS, k=-1)
    with pytest.raises(TypeError, match="`k` is str, not an integer"):
        model.recommend(ROWS, k="5")
    with pytest.raises(ValueError, match="`threads` is -1: it must be at least 1"):
        canet.Model(MODEL, threads=-1)


def test_every_form_of_histories_gives_the_same(model):
    expected = model.recommend(ROWS)
    objects = numpy.empty(len(ROWS), dtype=object)
    objects[:] = ROWS
    texts = pyarrow.array(ROWS, pyarrow.list_(pyarrow.string()))
    numbers = pyarrow.array(NUMBERS, pyarrow.list_(pyarrow.int64()))
    around = pyarrow.array([["7"], *ROWS, ["9", "11"]], pyarrow.list_(pyarrow.string()))
    forms = {
        "tuples": tuple(map(tuple, ROWS)),
        "a generator": (iter(row) for row in ROWS),
        "integers": NUMBERS,
        "numpy's integers": [[numpy.int64(number) for number in row] for row in NUMBERS],
        "an array of lists": objects,
        "arrays of texts": [numpy.array(row, dtype=str) for row in ROWS],
        "arrow texts": texts,
        "arrow integers": numbers,
        "long lists": texts.cast(pyarrow.large_list(pyarrow.large_string())),
        "views": pyarrow.array(ROWS, pyarrow.list_view(pyarrow.string_view())),
        "a dictionary": pyarrow.array(ROWS, pyarrow.list_(pyarrow.dictionary(pyarrow.int8(), pyarrow.string()))),
        "a slice": around.slice(1, len(ROWS)),
        "chunks": pyarrow.chunked_array([texts.slice(0, 1), texts.slice(1)]),
        "null": pyarrow.array([row or None for row in ROWS], pyarrow.list_(pyarrow.string())),
        "small integers": pyarrow.array([[n for n in row if n >= 0] for row in NUMBERS], pyarrow.list_(pyarrow.uint16())),
        "polars": polars.Series(ROWS, dtype=polars.List(polars.String)),
        "polars integers": polars.Series(NUMBERS),
        "polars categories": polars.Series(ROWS, dtype=polars.List(polars.Categorical)),
    }
    for name, form in forms.items():
        assert same(model.recommend(form), expected), name
    fixed = pyarrow.array([[50, 181], [1, 2]], pyarrow.list_(pyarrow.int32(), 2))
    assert same(model.recommend(fixed), model.recommend([["50", "181"], ["1", "2"]]))
    assert same(model.recommend(fixed.slice(1)), model.recommend([["1", "2"]]))


def test_no_history_gives_no_row(model):
    for none in [[], numpy.zeros((0, 3), "int64"), pyarrow.array([], pyarrow.list_(pyarrow.string()))]:
        found = model.recommend(none, k=7)
        assert found.items.shape == found.scores.shape == (0, 7)
        assert model.scores(none).shape == (0, len(model.items))


def test_a_history_without_a_known_item_gets_what_a_server_recommends(model, server):
    found = model.recommend([["no such item"], []], k=5, exclude=["50"])
    body = json.dumps({"history": ["no such item"], "k": 5, "exclude": ["50"]}).encode()
    call = urllib.request.Request(f"{server}/recommend", body, {"content-type": "application/json"})
    answer = json.load(urllib.request.urlopen(call))
    for row in range(2):
        assert found[row] == [(item["item"], item["score"]) for item in answer["items"]]
    assert found.routes.tolist() == [None, None]
    assert numpy.isnan(model.scores([[], ["50"]])).all(axis=1).tolist() == [True, False]


def test_parquet_goes_in_and_comes_out(model, histories, command, tmp_path):
    users = [f"user {place}" for place in range(len(histories))]
    data, out = tmp_path / "data.parquet", tmp_path / "top.parquet"
    # A user who has seen all but one item, and one who has seen every item and gets none.
    for seen, k in [(histories, 4), ([model.items[1:], model.items], 2)]:
        rows = [(user, item) for user, history in zip(users, seen) for item in history]
        columns = dict(zip(["user", "item"], map(list, zip(*rows))))
        parquet.write_table(pyarrow.table({**columns, "time": list(range(len(rows)))}), data)
        assert command("rank", "--model", MODEL, "--data", data, "--k", k, "--out", out) == ""
        written, found = parquet.read_table(out), model.recommend(seen, k=k)
        assert written.column_names == ["user", "items", "scores", "route"]
        assert written["user"].to_pylist() == users[: len(seen)]
        for name, expected in zip(["items", "scores", "route"], found.to_arrow().columns):
            assert written[name].to_pylist() == expected.to_pylist()
    assert written["items"].to_pylist() == [[model.items[0]], []]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.parquet", "top.parquet"]


def test_scores_rank_as_recommend_does(model, histories):
    columns = {item: place for place, item in enumerate(model.items)}
    for route in ["auto", "smallest", "h64-l1-e64"]:
        found = model.recommend(histories[:50], k=20, route=route)
        scores = model.scores(histories[:50], route=route)
        assert scores.shape == (50, len(model.items)) and scores.dtype == numpy.float32
        for row, history in enumerate(histories[:50]):
            scores[row, [columns[item] for item in history]] = -numpy.inf
            best = numpy.lexsort([numpy.arange(scores.shape[1]), -scores[row]])[:20]
            assert [model.items[place] for place in best] == found.items[row].tolist()


def test_excluded_items_are_left_out(model, histories):
    few = histories[:20]
    free = model.recommend(few, k=8)
    for exclude in [free.items[0][:3].tolist(), set(free.items[0][:3]), free.items[0][:3].astype("int64")]:
        # An item that one user must not get makes room for the next one.
        wanted = model.recommend(few, k=8 + 3)
        for row, (found, all_of_them) in enumerate(zip(model.recommend(few, k=8, exclude=exclude), wanted)):
            denied = set(map(str, exclude))
            assert found == [(item, score) for item, score in all_of_them if item not in denied][:8]
    each = [row[:2].tolist() for row in free.items]
    for exclude in [each, numpy.array(each, "int64"), pyarrow.array(each)]:
        found = model.recommend(few, k=6, exclude=exclude)
        assert (found.items == free.items[:, 2:]).all() and (found.scores == free.scores[:, 2:]).all()
    with pytest.raises(ValueError, match="`exclude` has 19 lists for 20 histories"):
        model.recommend(few, exclude=each[1:])


def test_items_come_from_the_candidates_alone(model, histories):
    few = [*histories[:20], []]
    free = model.recommend(few, k=60)
    ours = sorted({item for row in free.items[:, ::7] for item in row})
    for candidates in [ours, set(ours), numpy.array(ours, "int64"), [*ours, *ours, "no such item"]]:
        found = model.recommend(few, k=5, candidates=candidates)
        for row, all_of_them in zip(found, model.recommend(few, k=len(model.items))):
            assert row == [(item, score) for item, score in all_of_them if item in ours][:5]
    # Each its own, within what is not excluded. The router chooses as without them.
    each = free.items[:, [40, 3, 20, 20]].tolist()
    found = model.recommend(few, k=3, candidates=each, exclude=[row[0] for row in each[:1]])
    assert (found.routes == free.routes).all()
    for row, (place, ids) in zip(found, enumerate(each)):
        ranked = list(zip(free.items[place], free.scores[place]))
        assert row == [pair for pair in ranked if pair[0] in ids and pair[0] != each[0][0]]
    nobody = model.recommend(few, k=2, candidates=[])
    assert (nobody.items == None).all() and numpy.isnan(nobody.scores).all()  # noqa: E711
    with pytest.raises(ValueError, match="`candidates` has 20 lists for 21 histories"):
        model.recommend(few, candidates=each[1:])
    with pytest.raises(TypeError, match="`candidates` is a text"):
        model.recommend(few, candidates="50")


def test_a_catalogue_file_hides_filters_and_names(model, tmp_path):
    catalogue = tmp_path / "catalogue.csv"
    lines = [f"{item},Film {item},{'even' if int(item) % 2 == 0 else 'odd'},{item == '288'}" for item in model.items]
    catalogue.write_text("\n".join(["id,title,parity,hidden", *lines]) + "\n")
    with_catalogue = canet.Model(MODEL, catalogue)
    assert with_catalogue.title("50") == "Film 50" and with_catalogue.title("no such item") is None
    history, everything = [["50", "181", "258"]], len(model.items)
    ranked = model.recommend(history, k=everything)[0]
    visible = with_catalogue.recommend(history, k=everything)
    assert visible[0] == [(item, score) for item, score in ranked if item != "288"]
    # The rows are as long as was asked for.
    assert visible.items[0, -1] is None and numpy.isnan(visible.scores[0, -1])
    for filter, parity in [({"parity": "odd"}, 1), ({"parity": ["even"]}, 0), ({"not": {"parity": {"odd"}}}, 0)]:
        found = with_catalogue.recommend(history, k=10, filter=filter)[0]
        assert found == [(item, score) for item, score in visible[0] if int(item) % 2 == parity][:10]
    again = pickle.loads(pickle.dumps(with_catalogue))
    assert again.recommend(history, filter={"parity": "odd"}).items.tolist() == [[item for item, _ in visible[0] if int(item) % 2][:10]]
    with pytest.raises(ValueError, match='`filter.parity`: no item has "od" as "parity": the values are "odd"'):
        with_catalogue.recommend(history, filter={"parity": "od"})
    with pytest.raises(ValueError, match="`filter` needs a catalogue file"):
        model.recommend(history, filter={"parity": "odd"})
    with pytest.raises(ValueError, match="no/such/file"):
        canet.Model(MODEL, "no/such/file")


def test_wrong_values_have_the_texts_of_the_server(model, server):
    for field, value in [("k", 0), ("k", 1683), ("budget", 0.0), ("budget", 1.5), ("route", "h5-l1-e6")]:
        body = json.dumps({"history": ["50"], field: value}).encode()
        call = urllib.request.Request(f"{server}/recommend", body, {"content-type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(call)
        detail = json.load(refused.value)["detail"].replace("a name of /routes", "a route's name")
        with pytest.raises(ValueError) as wrong:
            model.recommend([["50"]], **{field: value})
        assert str(wrong.value) == detail


@pytest.mark.parametrize(
    ("histories", "kind", "words"),
    [
        (["50", "181"], ValueError, "`histories` is one history: put it into a list"),
        (numpy.array([50, 181]), ValueError, "`histories` is one history"),
        (pyarrow.array(["50"]), ValueError, "`histories` is one history"),
        ("50", TypeError, "`histories` is a text: give a list"),
        (50, TypeError, "`histories` is int, not a list"),
        ([["50"], 1.5], TypeError, "`histories` holds float at place 1, not a list of ids"),
        ([["50"], None], TypeError, "`histories` holds NoneType at place 1, not a list of ids"),
        ([["50"], ["1", 2.0]], TypeError, "`histories` holds an id of type float in list 1: ids are strings or integers"),
        ([[True]], TypeError, "an id of type bool"),
        ([["50"], "181"], TypeError, "`histories` has ids beside lists of ids"),
        (numpy.array([[1.0]]), TypeError, "an id of type float"),
        (numpy.ma.array([[50, 181]], mask=[[1, 0]]), TypeError, "an id of type MaskedConstant in list 0"),
        ([numpy.ma.array([50, 181], mask=[1, 0])], TypeError, "an id of type MaskedConstant in list 0"),
        (pyarrow.array([[1.0]]), TypeError, "`histories` holds ids of type Float64"),
        (pyarrow.table({"history": [["50"]]}), TypeError, "`histories` is a table: give its column"),
    ],
)
def test_wrong_histories_are_named(model, histories, kind, words):
    with pytest.raises(kind, match=words):
        model.recommend(histories)


def test_ids_that_no_integer_type_holds_are_unknown(model):
    assert model.recommend([[10**30, "50"]])[0] == model.recommend([["50"]])[0]
    assert model.recommend([[2**64 - 1, "50"]])[0] == model.recommend([["50"]])[0]


def test_a_missing_or_damaged_model_is_named(tmp_path):
    with pytest.raises(canet.ModelError, match="no/such/model"):
        canet.Model("no/such/model")
    with pytest.raises(canet.ModelError, match="version 99"):
        canet.Model(MODEL, version=99)
    for options, words in [({"threads": 0}, "`threads` is 0"), ({"precision": "fp8"}, "`precision` is \"fp8\"")]:
        with pytest.raises(ValueError, match=words):
            canet.Model(MODEL, **options)
    damaged = tmp_path / "damaged" / "1"
    damaged.mkdir(parents=True)
    for file in (MODEL / str(MODEL_VERSION)).iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = bytearray((damaged / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "weights.safetensors").write_bytes(weights)
    with pytest.raises(canet.ModelError, match="weights.safetensors"):
        canet.Model(damaged.parent)


def test_the_description_is_that_of_canet_inspect(model, command):
    inspected = json.loads(command("inspect", "--json", "--model", MODEL))
    routes = inspected.pop("routes")
    assert model.info == inspected
    assert [vars(route) for route in model.routes] == [{"name": route.pop("route"), **route} for route in routes]
    assert repr(model) == f"Model('ml-100k', version={MODEL_VERSION})"


def test_a_model_is_pickled_as_its_path_and_version(model, histories):
    pickled = pickle.dumps(model)
    assert len(pickled) < 1000
    assert same(pickle.loads(pickled).recommend(histories[:9]), model.recommend(histories[:9]))


def test_the_number_of_threads_changes_no_bit(model, histories):
    assert same(canet.Model(MODEL, threads=1).recommend(histories, route="full"), model.recommend(histories, route="full"))


def test_an_answer_is_asked_for_by_its_row_alone(model):
    found = model.recommend(ROWS, k=3)
    assert found[numpy.int64(1)] == found[1] and found[-1] == found[len(ROWS) - 1]
    for row in (slice(2), [0, 1], 1.0):
        with pytest.raises(TypeError):
            found[row]


def test_lists_of_items_and_routes_are_the_callers(model):
    other = canet.Model(MODEL)
    other.items.sort()
    other.routes.sort(key=lambda route: -route.flops)
    for route in ("full", "smallest"):
        assert same(other.recommend(ROWS, k=3, route=route), model.recommend(ROWS, k=3, route=route))


def test_wrong_types_of_options_are_named(model):
    for options, words in [({"route": 5}, "`route` is int, not a text"), ({"budget": "x"}, "`budget` is str, not a number")]:
        with pytest.raises(TypeError, match=words):
            model.recommend(ROWS, **options)
        with pytest.raises(TypeError, match=words):
            model.scores(ROWS, **options)
    with pytest.raises(TypeError, match="`item` has 1.5"):
        model.title(1.5)
    assert model.title(50) == model.title("50")


def test_arrow_tables_hold_the_answer(model):
    found = model.recommend([*ROWS, ["50"]], k=1682)
    table = found.to_arrow()
    assert table.column_names == ["items", "scores", "route"]
    expected = [[item for item, _ in row] for row in found]
    assert table["items"].to_pylist() == expected and len(expected[0]) == 1682 - 3
    assert table["scores"].to_pylist() == [[score for _, score in row] for row in found]
    assert table["route"].to_pylist() == found.routes.tolist()


def test_other_threads_run_meanwhile(model, histories):
    ticks, stop = 0, threading.Event()

    def tick():
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    # Python takes the lock from no thread now: the other one runs only while this one gives it up.
    sys.setswitchinterval(1e6)
    other = threading.Thread(target=tick)
    try:
        other.start()
        lists = pyarrow.array(histories)
        before = ticks
        model.recommend(lists, route="full")
        assert ticks > before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        other.join()


@pytest.fixture
def interruptible():
    """Sets Python's own handler of SIGINT, which a shell's background jobs lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("call", "times"), [("recommend", 200), ("scores", 20)])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_long_call(model, histories, call, times):
    ask = getattr(model, call)
    began = time.monotonic()
    ask(pyarrow.array(histories), route="full")
    once = time.monotonic() - began
    lists = pyarrow.array(histories * times)
    running = threading.Event()

    def interrupt():
        running.wait()
        _thread.interrupt_main()

    other = threading.Thread(target=interrupt)
    other.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        running.set()
        ask(lists, route="full")
    # Without a look at signals the whole call would run first.
    assert time.monotonic() - began < times / 2 * once
    other.join()
