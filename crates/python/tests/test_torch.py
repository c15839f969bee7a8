"""`canet.to_torch` against a network that was written out by hand, against `canet.Model`, and as ONNX."""

import io
import json

import numpy
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

import canet
from canet.torch import Slice
from conftest import MODEL, MODEL_VERSION, REPOSITORY

ROUTES = ["smallest", "h32-l2-e32", "full"]

# Scores closer than this may change places, because both sides round.
TIE = 1e-4


def test_every_flag_and_route_gives_what_the_definition_gives():
    # tests/fixtures/make_flags.py computes the scores in float64, one history at a time, from the definition alone.
    fixture = json.loads((REPOSITORY / "tests" / "fixtures" / "flags.json").read_text())
    for model in fixture["models"]:
        config = model["config"]
        weights = {
            name: torch.tensor(weight["numbers"], dtype=torch.float32).reshape(weight["shape"]) / weight["unit"]
            for name, weight in model["weights"].items()
        }
        names = [f"h{h}-l{l}-e{e}" for h in config["hidden"] for l in config["layers"] for e in config["embedding"]]
        assert len(names) == len(model["scores"])
        ids = [str(item + 1) for item in range(config["items"])]
        for name, expected in zip(names, model["scores"]):
            route = Slice(config, weights, name, ids).eval()
            with torch.inference_mode():
                found = route(route.encode(fixture["histories"]))
            assert numpy.allclose(found, expected, rtol=1e-4, atol=1e-4), (name, config)


@pytest.mark.parametrize("route", ROUTES)
def test_scores_are_those_of_the_model(model, histories, route):
    module = canet.to_torch(MODEL, route)
    with torch.inference_mode():
        found = module(module.encode(histories))
    assert numpy.allclose(found[:, 1:], model.scores(histories, route), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("route", ROUTES)
def test_onnx_runtime_ranks_as_the_model_does(model, histories, route):
    module = canet.to_torch(MODEL, route)
    file = io.BytesIO()
    torch.onnx.export(
        module,
        (module.encode(histories[:2]),),
        file,
        dynamo=False,
        opset_version=17,
        input_names=["histories"],
        output_names=["scores"],
        dynamic_axes={"histories": {0: "batch", 1: "length"}, "scores": {0: "batch"}},
    )
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    probes = load_file(MODEL / str(MODEL_VERSION) / "probes.safetensors")
    probed = [[model.items[item - 1] for item in row if item > 0] for row in probes["histories"].tolist()]
    asked = [*probed, *histories]
    (scores,) = session.run(["scores"], {"histories": module.encode(asked).numpy()})
    ranked = model.recommend(asked, k=11, route=route, exclude_seen=False)
    order = numpy.argsort(-scores[:, 1:], axis=1, kind="stable")
    for row, best in enumerate(order[:, :10]):
        for place, item in enumerate(best):
            # The same item, or one whose score ties with it.
            expected = ranked.items[row, place]
            assert model.items[item] == expected or abs(scores[row, item + 1] - ranked.scores[row, place]) < TIE


def test_the_module_trains_and_saves_as_any_other(histories):
    module = canet.to_torch(MODEL, "smallest").train()
    rows = module.encode(histories[:4])
    torch.nn.functional.cross_entropy(module(rows), torch.tensor([1, 2, 3, 4])).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    copy = canet.to_torch(MODEL, "smallest")
    copy.load_state_dict(module.state_dict())


def test_wrong_routes_and_versions_are_named(tmp_path):
    with pytest.raises(ValueError, match="there is no route 'h5': use full, smallest or a route's name, as h16-l1-e16"):
        canet.to_torch(MODEL, "h5")
    with pytest.raises(FileNotFoundError, match="holds no version"):
        canet.to_torch(tmp_path)
    with pytest.raises(ValueError, match="history 1 has no item that the model knows"):
        canet.to_torch(MODEL).encode([["50"], ["no such item"]])


def test_tensors_of_ids_are_read_as_lists_of_them(model):
    histories = [["50", "181", "258"], ["1"]]
    # Each row has one element, which converts to an integer.
    for ids in ([[5], [6]], [[288], [50]]):
        found = model.recommend(histories, exclude=torch.tensor(ids))
        assert found.items.tolist() == model.recommend(histories, exclude=ids).items.tolist()
        assert model.recommend(torch.tensor(ids)).items.tolist() == model.recommend(ids).items.tolist()
    for ids in ([50, 181], [288]):
        assert model.recommend(histories, exclude=torch.tensor(ids)).items.tolist() == model.recommend(histories, exclude=ids).items.tolist()


def test_wrong_histories_of_the_encoder_are_named():
    module = canet.to_torch(MODEL)
    for histories, words in [
        (["50", "181"], r"`histories\[0\]` is a text: give a list"),
        ([["50"], [50.0]], r"`histories\[1\]` has 50.0 of type float"),
        ([["50", None]], "None"),
    ]:
        with pytest.raises(TypeError, match=words):
            module.encode(histories)
    with pytest.raises(ValueError, match="copy the version from the bucket first"):
        canet.to_torch("s3://models/ml-100k")
