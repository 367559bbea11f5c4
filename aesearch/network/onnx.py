"""The network as ONNX, for the CPU: quicker there than torch, and without the seconds that takes to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.images.decode import Preprocessing

if TYPE_CHECKING:
    import onnx
    from torch import nn

LEAST_LENGTH = 1e-2  # as in aesearch.network.layers, which needs torch
AT_ONCE = 8  # images: of each there may be a million likenesses to patches
OPSET = 18  # Resize by sizes of some axes
IMAGES, LATENTS, ERRORS = "images", "latents", "errors"


def translate(
    encoder: nn.Module, preprocessing: Preprocessing, latent_dim: int, decoder: nn.Module | None = None
) -> bytes:
    """Write an encoder down as an ONNX model.

    Its input ``images`` is (n, channels, height, width) uint8, its output ``latents`` (n, latent_dim) float32.

    Parameters
    ----------
    encoder : nn.Module
        Its layers in order, batch norms folded into the convolutions before them.
    decoder : nn.Module, optional
        With it there is a second output, ``errors`` (n,) float32: the mean squared error per pixel, on the [0, 1]
        scale, of the images that the latents decode to.

    Raises
    ------
    ValueError
        A kind of layer that is not known here.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    graph.add("Cast", to=TensorProto.FLOAT)
    uncoded = graph.last
    first, *others = encoder.children()
    if type(first).__name__ == "Conv2d":  # divides by 255 as it goes
        _translate(graph, first, 1 / 255)
    else:
        graph.add("Div", np.array(255, np.float32))
        _translate(graph, first)
    for layer in others:
        _translate(graph, layer)
    graph.call_last(LATENTS)
    outputs = [helper.make_tensor_value_info(LATENTS, TensorProto.FLOAT, ["n", latent_dim])]
    if decoder is not None:
        _score(graph, decoder, uncoded)
        outputs.append(helper.make_tensor_value_info(ERRORS, TensorProto.FLOAT, ["n"]))
    images = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["n", *preprocessing.shape])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "encoder", [images], outputs, graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,  # what ONNX Runtime has read since 2022
        producer_name="aesearch",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _score(graph: _Graph, decoder: nn.Module, images: str) -> None:
    """Add a decoder, and the error of what it gives of those images."""
    for layer in decoder.children():
        _translate(graph, layer)
    graph.add("Mul", np.array(255, np.float32))
    graph.add("Sub", images)
    graph.add("Mul", np.array(1 / 255, np.float32))
    graph.add("Mul", graph.last)
    graph.add("ReduceMean", np.array([1, 2, 3], np.int64), keepdims=0)
    graph.call_last(ERRORS)


class _Graph:
    """Nodes, each fed by ``last``, the output of the one before unless set otherwise, and by weights or others."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.names: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.last = IMAGES

    def add(self, kind: str, *others: NDArray[Any] | str | None, **attributes: Any) -> None:
        from onnx import helper, numpy_helper

        inputs = [self.last]
        for other in others:
            if other is None or isinstance(other, str):
                inputs.append(other or "")
                continue
            same = (other.dtype.str, other.shape, other.tobytes())
            if same not in self.names:  # layers may come twice, for an image and its mirror image
                self.names[same] = f"weight{len(self.weights)}"
                self.weights.append(numpy_helper.from_array(np.ascontiguousarray(other), self.names[same]))
            inputs.append(self.names[same])
        self.last = f"layer{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [self.last], **attributes))

    def call_last(self, name: str) -> None:
        """Give the last output a name of its own."""
        self.nodes[-1].output[0] = self.last = name


def _translate(graph: _Graph, layer: Any, scale: float = 1) -> None:
    """Add what one layer does, a convolution to its input times ``scale``."""
    match type(layer).__name__:
        case "Conv2d":
            strides, pads = list(layer.stride), list(layer.padding) * 2
            weight = layer.weight.detach() * scale
            graph.add("Conv", _numbers(weight), _numbers(layer.bias), strides=strides, pads=pads)
        case "ConvTranspose2d":
            sides = {"strides": list(layer.stride), "pads": list(layer.padding) * 2}
            sides["output_padding"] = list(layer.output_padding)
            graph.add("ConvTranspose", _numbers(layer.weight), _numbers(layer.bias), **sides)
        case "Linear":
            graph.add("Gemm", _numbers(layer.weight), _numbers(layer.bias), transB=1)
        case "ReLU":
            graph.add("Relu")
        case "Sigmoid" | "Tanh" as kind:
            graph.add(kind)
        case "Scale":
            graph.add("Mul", np.array(layer.factor, np.float32))
            graph.add("Add", np.array(layer.shift, np.float32))
        case _:
            _combine(graph, layer)


def _combine(graph: _Graph, layer: Any) -> None:
    """Add one of our own layers, or several."""
    match type(layer).__name__:
        case "Clamp":
            graph.add("Clip", np.array(0, np.float32), np.array(1, np.float32))
        case "Sequential":
            for inner in layer.children():
                _translate(graph, inner)
        case "Beside":
            _branch_out(graph, layer)
        case "Mirrored":
            _mirror(graph, layer)
        case "PatchCodes":
            _liken(graph, layer)
        case "Unit":
            _divide_by_length(graph, LEAST_LENGTH)
        case "Fields":
            graph.add("Reshape", np.array([0, 0, -1], np.int64))
            graph.add("MatMul", _numbers(layer.shares))
        case _:
            _rearrange(graph, layer)


def _branch_out(graph: _Graph, layer: Any) -> None:
    """Add branches that all begin with the same, and what they give together."""
    start, ends = graph.last, []
    for branch in layer.branches:
        graph.last = start
        _translate(graph, branch)
        ends.append(graph.last)
    graph.last, *others = ends
    if layer.added:
        graph.add("Sum", *others)
    else:
        graph.add("Concat", *others, axis=1)


def _mirror(graph: _Graph, layer: Any) -> None:
    """Add layers for the images and for the mirrored ones, and the mean of both."""
    images = graph.last
    _translate(graph, layer.layers)
    upright, graph.last = graph.last, images
    graph.add("Slice", np.array([-1]), np.array([-(2**31)]), np.array([layer.axis]), np.array([-1]))
    _translate(graph, layer.layers)
    graph.add("Add", upright)
    graph.add("Mul", np.array(0.5, np.float32))


def _divide_by_length(graph: _Graph, floor: float) -> None:
    """Divide by the root of the squares' sum over the first axis, and of the floor's square."""
    vectors = graph.last
    graph.add("ReduceSumSquare", np.array([1], np.int64))
    graph.add("Add", np.array(floor**2, np.float32))
    graph.add("Sqrt")
    lengths, graph.last = graph.last, vectors
    graph.add("Div", lengths)


def _liken(graph: _Graph, layer: Any) -> None:
    """Add the likenesses to patches, as `aesearch.network.layers.PatchCodes` has them."""
    graph.add("Conv", _numbers(layer.filters), strides=[layer.stride] * 2)
    _divide_by_length(graph, float(layer.floor))
    mean, spread, less = map(_numbers, layer.moments())
    patches = graph.last
    graph.add("Conv", mean)
    usual, graph.last = graph.last, patches
    graph.add("Conv", spread)
    graph.add("Mul", patches)
    graph.add("ReduceSum", np.array([1], np.int64))
    graph.add("Max", np.array(0, np.float32))
    graph.add("Sqrt")
    graph.add("Mul", np.array(layer.sparse, np.float32))
    graph.add("Add", usual)
    least, graph.last = graph.last, patches
    graph.add("Concat", least, axis=1)
    graph.add("Conv", less)
    graph.add("Relu")


def _rearrange(graph: _Graph, layer: Any) -> None:
    """Add a layer that changes the maps' shape."""
    match type(layer).__name__:
        case "Flatten":
            graph.add("Flatten", axis=1)
        case "Last":
            graph.add("Slice", np.array([-layer.numbers]), np.array([2**31 - 1]), np.array([1]))
        case "Unflatten":
            graph.add("Reshape", np.array([-1, *layer.unflattened_size], np.int64))
        case "MaxPool2d":
            side, strides = [layer.kernel_size] * 2, [layer.stride] * 2
            graph.add("MaxPool", kernel_shape=side, strides=strides, ceil_mode=int(layer.ceil_mode))
        case "Upsample":
            graph.add("Resize", None, None, np.array(layer.size, np.int64), mode="linear", axes=[2, 3])
        case "PixelShuffle":
            graph.add("DepthToSpace", blocksize=layer.upscale_factor, mode="CRD")
        case "ZeroPad2d":
            left, right, top, bottom = layer.padding
            graph.add("Pad", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        case name:
            raise ValueError(f"no ONNX for a layer {name}")


def _numbers(parameter: Any) -> NDArray[np.float32] | None:
    return None if parameter is None else np.asarray(parameter.detach().cpu().numpy(), dtype=np.float32)


class PortableEncoder:
    """An encoder from the bytes of its ONNX model, on one thread of the CPU; several may call it at once.

    Its latents are those that torch makes up to float32 rounding, 1e-4 at most.
    """

    def __init__(self, data: bytes, feature_dim: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # where it was imported, and began to report, before aesearch was
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # to start threads takes longer than to encode an image
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._feature_dim = feature_dim

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (n, feature_dim) float32 of images (n, channels, height, width) uint8."""
        parts = [self.encode_latents(images[start : start + AT_ONCE]) for start in range(0, len(images), AT_ONCE)]
        return np.ascontiguousarray(np.concatenate(parts)[:, : self._feature_dim])

    def encode_latents(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Latents (n, latent_dim) float32 of images (n, channels, height, width) uint8, all at once."""
        (latents,) = self._session.run([LATENTS], {IMAGES: images})
        return np.asarray(latents, dtype=np.float32)

    def encode_and_score(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Latents, and the error of each image (n,) float32, all at once; of a model with a decoder."""
        latents, errors = self._session.run([LATENTS, ERRORS], {IMAGES: images})
        return np.asarray(latents, dtype=np.float32), np.asarray(errors, dtype=np.float32)
