"""The peers that rank a batch of histories in this process. Each is a function of a checkpoint, a route and a number of threads, and
makes a function of [batch, length] ids that returns the ten best items of each."""

import functools
import io
import tempfile
from pathlib import Path

import onnx
import onnxruntime
import openvino
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.nn.functional import pad

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


def onnxruntime_fp32(checkpoint, route, threads):
    """ONNX Runtime on the CPU, every graph optimisation on.

    Batches are as long as their longest history. Padding to the model's longest costs more than fixed shapes gain.
    """
    return onnxruntime_session(onnx_model(checkpoint, route), threads)


def onnxruntime_int8(checkpoint, route, threads):
    """ONNX Runtime with linear layers in 8-bit integers. Scales of the activations are computed in each call."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "int8.onnx"
        model = onnx.load_from_string(onnx_model(checkpoint, route))
        quantize_dynamic(model, file, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
        return onnxruntime_session(file.read_bytes(), threads)


def onnxruntime_session(model, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda histories: torch.from_numpy(session.run(["items"], {"histories": histories.numpy()})[0])


def openvino_fp32(checkpoint, route, threads):
    """OpenVINO on the CPU, in float32."""
    return openvino_models(checkpoint, route, threads, "f32")


def openvino_bf16(checkpoint, route, threads):
    """OpenVINO with linear layers in bfloat16."""
    return openvino_models(checkpoint, route, threads, "bf16")


def openvino_models(checkpoint, route, threads, precision):
    """A compiled model for each size of a batch, of histories that are padded to the model's longest.

    Fixed shapes gain more than the padding costs.
    """
    model, longest = onnx_model(checkpoint, route), checkpoint.config["max_len"]

    @functools.cache
    def compiled(batch):
        network = openvino.Core().read_model(io.BytesIO(model))
        network.reshape({"histories": [batch, longest]})
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # The caller has chosen the cores.
            "ENABLE_CPU_PINNING": False,
        }
        network = openvino.compile_model(network, "CPU", settings)
        ran = multiplied_in(network)
        if ran != {precision}:
            raise RuntimeError(f"OpenVINO multiplies matrices in {sorted(ran)}, not in {precision}")
        return network.create_infer_request(), network.output("items")

    def rank(histories):
        request, items = compiled(len(histories))
        request.infer([pad(histories, (longest - histories.shape[1], 0)).numpy()], share_inputs=True)
        return torch.from_numpy(request.get_tensor(items).data.copy())

    return rank


def multiplied_in(compiled):
    """The precisions of a compiled model's linear layers, as their kernels report them."""
    nodes = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    return {
        node["runtimePrecision"].astype(str).lower().replace("fp", "f")
        for node in nodes if node["layerType"].astype(str) == "FullyConnected"
    }


# Those that compute float32, whose ten best items are canet's, and then those that round more.
EXACT = {"onnxruntime": onnxruntime_fp32, "openvino": openvino_fp32, "eager": eager}
ROUNDED = {"onnxruntime-int8": onnxruntime_int8, "openvino-bf16": openvino_bf16}
PEERS = EXACT | ROUNDED

# As results name them.
NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "eager": "PyTorch eager",
    "onnxruntime-int8": "ONNX Runtime int8",
    "openvino-bf16": "OpenVINO bf16",
}
