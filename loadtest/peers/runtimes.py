"""The peers that rank a batch of histories in this process: each is a name and a function of [batch, length] ids."""

import io

import onnxruntime
import torch

from network import Route


def eager(checkpoint, route, threads):
    """PyTorch as it is."""
    torch.set_num_threads(threads)
    model = Route(checkpoint, route).eval()

    def rank(histories):
        with torch.inference_mode():
            return model(histories).indices

    return rank


def onnx_model(checkpoint, route):
    """The route as ONNX bytes. In opset 17 LayerNormalization is one operator, and ONNX Runtime fuses the exact GELU."""
    file = io.BytesIO()
    example = torch.ones(2, 3, dtype=torch.int64)
    torch.onnx.export(
        Route(checkpoint, route).eval(),
        (example,),
        file,
        dynamo=False,
        opset_version=17,
        input_names=["histories"],
        output_names=["scores", "items"],
        dynamic_axes={"histories": {0: "batch", 1: "length"}},
    )
    return file.getvalue()


def onnx(checkpoint, route, threads):
    """ONNX Runtime on the CPU, every graph optimisation on."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        onnx_model(checkpoint, route), options, providers=["CPUExecutionProvider"]
    )
    return lambda histories: torch.from_numpy(session.run(["items"], {"histories": histories.numpy()})[0])


PEERS = {"onnxruntime": onnx, "eager": eager}
