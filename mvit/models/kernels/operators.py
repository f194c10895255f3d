"""Operators: the C++ functions of `native/` as MindSpore operators with gradients.

All maps are channels-last: (B, H, W, C) float32. An operator has the name of its function without `mvit_`; parameters
come in the shapes of checkpoints, and are packed anew by each call, which costs little beside their use.

MindSpore finds a gradient by the *name* of the C function, so two functions may not differ in their gradients alone.
It calls operators one at a time, from one thread, with aligned pointers (watched over 1450 calls).
"""

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops

_library: Path | None = None


def open_library(path: Path, *, threads: int) -> None:
    """Use the operators of this shared library, on so many threads; results depend on their number.

    Call it before a network is built. A process has one library.
    """
    global _library
    ctypes.CDLL(str(path)).mvit_set_threads(threads)
    _library = path


def _operator(name: str, shapes: Callable[..., Any], *, outputs: int, bprop: Callable[..., Any] | None = None) -> Any:
    """An operator of float32 tensors; `shapes` gives those of its outputs from those of its inputs."""
    assert _library is not None, "open_library comes first"
    dtype = ms.float32 if outputs == 1 else (ms.float32,) * outputs

    def dtypes(*_):
        return dtype

    return ops.Custom(f"{_library}:mvit_{name}", out_shape=shapes, out_dtype=dtypes, func_type="aot", bprop=bprop)


def conv_norm(*, stride: int, differentiate_input: bool = True) -> Any:
    """x, weight, gamma, beta, moving_mean, moving_variance, constants -> silu(batch_norm(conv(x))), and what is kept.

    Moves the running statistics. Without `differentiate_input` the gradient of x is 0: the input are images.
    """
    assert stride == 1 or not differentiate_input, "the gradient of the input is made for stride 1 alone"
    if differentiate_input:
        gradient = _operator("conv_norm_grad", lambda x, w, g, b, y, s, dz: (w, g, b, x), outputs=4)
    else:
        gradient = _operator("conv_norm_grad_weights", lambda x, w, g, b, y, s, dz: (w, g, b), outputs=3)

    def bprop(x, w, gamma, beta, mean, variance, constants, out, dout):
        grads = gradient(x, w, gamma, beta, out[1], out[2], dout[0])
        dx = grads[3] if differentiate_input else ops.zeros_like(x)
        zeros = (ops.zeros_like(mean), ops.zeros_like(variance), ops.zeros_like(constants))
        return (dx, grads[0], grads[1], grads[2], *zeros)

    def shapes(x, w, gamma, beta, mean, variance, constants):
        y = _strided(x, stride, w[0])
        return y, y, [2 * w[0]]

    name = "conv_norm" if differentiate_input else "conv_norm_of_images"
    return _operator(name, shapes, outputs=3, bprop=bprop)


def conv_norm_eval(*, stride: int) -> Any:
    """The same with the running statistics; has no gradient."""
    return _operator("conv_norm_eval", lambda x, w, *_: _strided(x, stride, w[0]), outputs=1)


def inverted_residual(*, stride: int) -> Any:
    """x, three times (weight, gamma, beta, moving_mean, moving_variance), constants -> z, and what is kept.

    constants: epsilon, the share of the running statistics that is kept, stride.
    """

    def gradient_shapes(x, w1, g1, b1, w2, g2, b2, w3, g3, b3, y1, y2, y3, saved, constants, dz):
        return x, w1, g1, b1, w2, g2, b2, w3, g3, b3

    gradient = _operator("inverted_residual_grad", gradient_shapes, outputs=10)

    def bprop(x, w1, g1, b1, m1, v1, w2, g2, b2, m2, v2, w3, g3, b3, m3, v3, constants, out, dout):
        d = gradient(x, w1, g1, b1, w2, g2, b2, w3, g3, b3, out[1], out[2], out[3], out[4], constants, dout[0])
        none1, none2, none3 = ops.zeros_like(m1), ops.zeros_like(m2), ops.zeros_like(m3)
        of_expand = (d[1], d[2], d[3], none1, none1)
        of_depthwise = (d[4], d[5], d[6], none2, none2)
        of_project = (d[7], d[8], d[9], none3, none3)
        return (d[0], *of_expand, *of_depthwise, *of_project, ops.zeros_like(constants))

    def shapes(x, w1, g1, b1, m1, v1, w2, g2, b2, m2, v2, w3, *_):
        hidden, outputs = w1[0], w3[0]
        z = _strided(x, stride, outputs)
        return z, _strided(x, 1, hidden), _strided(x, stride, hidden), z, [4 * hidden + 2 * outputs]

    return _operator("inverted_residual", shapes, outputs=5, bprop=bprop)


def inverted_residual_eval(*, stride: int) -> Any:
    """The same with the running statistics; has no gradient."""

    def shapes(x, w1, g1, b1, m1, v1, w2, g2, b2, m2, v2, w3, *_):
        return _strided(x, stride, w3[0])

    return _operator("inverted_residual_eval", shapes, outputs=1)


def transformer_layer() -> Any:
    """x (R, N, D), key, salts, constants, the layer's 16 parameters -> y (R, N, D), and what is kept."""

    def gradient_shapes(x, key, salts, constants, *rest):
        return (x, *rest[:16])

    gradient = _operator("transformer_layer_grad", gradient_shapes, outputs=17)

    def bprop(
        x, key, salts, constants, g1, b1, wq, bq, wk, bk, wv, bv, wo, bo, g2, b2, w1, c1, w2, c2, out, dout
    ):  # fmt: skip
        d = gradient(
            x, key, salts, constants, g1, b1, wq, bq, wk, bk, wv, bv, wo, bo, g2, b2, w1, c1, w2, c2,
            out[1], out[2], out[3], out[4], dout[0],
        )  # fmt: skip
        none = (ops.zeros_like(key), ops.zeros_like(salts), ops.zeros_like(constants))
        return (d[0], *none, *d[1:])

    def shapes(x, key, salts, constants, *parameters):
        rows, tokens, features = x
        hidden = parameters[12][0]
        return x, [rows, tokens, 3 * features], x, x, [rows, tokens, hidden]

    return _operator("transformer_layer", shapes, outputs=5, bprop=bprop)


def transformer_layer_eval() -> Any:
    """The same without dropout; has no gradient."""
    return _operator("transformer_layer_eval", lambda x, *_: x, outputs=1)


def to_patches() -> Any:
    """x (B, H, W, D) -> (B * 4, H W / 4, D), a sequence for each place in the 2x2 patches; H and W even."""
    gradient = _operator("from_patches", lambda y, like: like, outputs=1)

    def bprop(x, out, dout):
        return (gradient(dout, x),)

    return _operator("to_patches", _patches, outputs=1, bprop=bprop)


def from_patches() -> Any:
    """y (B * 4, H W / 4, D), like (B, H, W, D) -> (B, H, W, D): the inverse."""
    gradient = _operator("to_patches", _patches, outputs=1)

    def bprop(y, like, out, dout):
        return gradient(dout), ops.zeros_like(like)

    return _operator("from_patches", lambda y, like: like, outputs=1, bprop=bprop)


def project() -> Any:
    """x (B, H, W, I), weight (O, I, 1, 1) -> (B, H, W, O)."""
    gradient = _operator("project_grad", lambda x, w, dy: (x, w), outputs=2)

    def bprop(x, w, out, dout):
        grads = gradient(x, w, dout)
        return grads[0], grads[1]

    return _operator("project", lambda x, w: [*x[:-1], w[0]], outputs=1, bprop=bprop)


def layer_norm() -> Any:
    """x (.., D), gamma, beta, constants -> the same, and what is kept."""
    gradient = _operator("layer_norm_grad", lambda x, g, b, c, mean, rstd, dy: (x, g, b), outputs=3)

    def bprop(x, gamma, beta, constants, out, dout):
        grads = gradient(x, gamma, beta, constants, out[1], out[2], dout[0])
        return grads[0], grads[1], grads[2], ops.zeros_like(constants)

    return _operator("layer_norm", lambda x, g, b, c: (x, x[:-1], x[:-1]), outputs=3, bprop=bprop)


def pool() -> Any:
    """x (B, H, W, C), key, salts, constants -> dropout(mean over pixels) (B, C)."""
    gradient = _operator("pool_grad", lambda x, *_: x, outputs=1)

    def bprop(x, key, salts, constants, out, dout):
        none = (ops.zeros_like(key), ops.zeros_like(salts), ops.zeros_like(constants))
        return (gradient(x, key, salts, constants, dout), *none)

    return _operator("pool", lambda x, *_: [x[0], x[3]], outputs=1, bprop=bprop)


def normalise() -> Any:
    """images (B, H, W, 3) uint8, scale (3,), shift (3,), order (3,) int32 -> (B, H, W, 3); has no gradient."""
    return _operator("normalise", lambda x, *_: x, outputs=1)


def flatten() -> Any:
    """loss (), gradients -> (1 + their size,); has no gradient."""

    def shape(*inputs):
        return [sum(math.prod(shape) for shape in inputs)]

    return _operator("flatten", shape, outputs=1)


def update(optimizer: str) -> Any:
    """flat, lr, decay, t, constants, factors, decays, parameters, moments -> (1,): gradient norm.

    Clips, and moves parameters and moments in place. `optimizer` is adamw, sgd, lion or lamb.
    """
    return _operator(optimizer, lambda *_: [1], outputs=1)


def average() -> Any:
    """momentum (), norm (), averages, values -> (1,): averages += momentum * (values - averages), in place.

    The norm is that of the update after which it comes.
    """
    return _operator("average", lambda *_: [1], outputs=1)


def _strided(x: list[int], stride: int, channels: int) -> list[int]:
    return [x[0], -(-x[1] // stride), -(-x[2] // stride), channels]


def _patches(x: list[int]) -> list[int]:
    return [x[0] * 4, x[1] * x[2] // 4, x[3]]
