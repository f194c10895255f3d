"""Operators: the C++ functions of `native/`, and their gradients, as MindSpore operators.

All maps are channels-last: (B, H, W, C) float32. An operator has the name of its function without `mvit_`; parameters
come in the shapes of checkpoints, and are packed anew by each call, which costs little beside their use.

MindSpore knows none of the gradients: `network` writes the backward pass out. `d` of some parameters are their
gradients as one vector, one after the other: fewer tensors compile faster.

MindSpore calls operators one at a time, from one thread, with aligned pointers (watched over 1450 calls).
"""

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops

_library: Path | None = None
_keeps_bf16 = False


def open_library(path: Path, *, threads: int) -> None:
    """Use the operators of this shared library, on so many threads; results depend on their number.

    Call it before a network is built. A process has one library.
    """
    global _library, _keeps_bf16
    library = ctypes.CDLL(str(path))
    library.mvit_set_threads(threads)
    _library, _keeps_bf16 = path, bool(library.mvit_keeps_bf16())


def group_bytes(workers: int, size: int) -> int:
    """The memory that workers share in order to add up vectors of at most `size` floats."""
    return _loaded().mvit_group_bytes(workers, ctypes.c_long(size))


def join_group(file: int, *, rank: int, workers: int, size: int, patience_s: float) -> None:
    """Share this open file, of `group_bytes`, all zero at first, with the other workers; raises `OSError`."""
    error = _loaded().mvit_join_group(file, rank, workers, ctypes.c_long(size), ctypes.c_double(patience_s))
    if error:
        raise OSError(error, os.strerror(error))


def all_reduce_s() -> float:
    """Seconds that this process has spent in `all_reduce`, waiting for the others included."""
    return _loaded().mvit_all_reduce_seconds() if _library else 0.0


def missing_worker() -> int | None:
    """The rank for which an `all_reduce` has waited in vain."""
    rank = _loaded().mvit_missing_worker() if _library else -1
    return rank if rank >= 0 else None


def _loaded() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library))
    library.mvit_group_bytes.restype = ctypes.c_long
    library.mvit_all_reduce_seconds.restype = ctypes.c_double
    return library


def _operator(name: str, shapes: Callable[..., Any], *, outputs: int = 1, kept: Sequence[int] = ()) -> Any:
    """An operator of float32 tensors; `shapes` gives those of its outputs from those of its inputs.

    The outputs `kept` are feature maps for the operator that computes the gradient; a library that keeps them as
    bfloat16 writes its bits.
    """
    assert _library is not None, "open_library comes first"
    each = tuple(ms.uint16 if output in kept and _keeps_bf16 else ms.float32 for output in range(outputs))
    dtype = each[0] if outputs == 1 else each

    def dtypes(*_):
        return dtype

    return ops.Custom(f"{_library}:mvit_{name}", out_shape=shapes, out_dtype=dtypes, func_type="aot")


def conv_norm(*, stride: int) -> Any:
    """x, weight, gamma, beta, moving_mean, moving_variance, constants -> silu(batch_norm(conv(x))), y, saved.

    Moves the running statistics.
    """

    def shapes(x, w, *_):
        y = _strided(x, stride, w[0])
        return y, y, [2 * w[0]]

    return _operator("conv_norm", shapes, outputs=3, kept=[1])


def conv_norm_grad() -> Any:
    """x, weight, gamma, beta, y, saved, dz -> d of weight, gamma, beta, and dx; for stride 1 alone."""
    return _operator("conv_norm_grad", lambda x, w, g, b, *_: (_flat(w, g, b), x), outputs=2)


def conv_norm_grad_weights() -> Any:
    """The same without dx, for any stride."""
    return _operator("conv_norm_grad_weights", lambda x, w, g, b, *_: _flat(w, g, b))


def conv_norm_eval(*, stride: int) -> Any:
    """As `conv_norm` with the running statistics; has no gradient."""
    return _operator("conv_norm_eval", lambda x, w, *_: _strided(x, stride, w[0]))


def inverted_residual(*, stride: int) -> Any:
    """x, three times (weight, gamma, beta, moving_mean, moving_variance), constants -> z, y1, y2, y3, saved.

    constants: epsilon, the share of the running statistics that is kept, stride.
    """

    def shapes(x, w1, g1, b1, m1, v1, w2, g2, b2, m2, v2, w3, *_):
        hidden, outputs = w1[0], w3[0]
        z = _strided(x, stride, outputs)
        return z, _strided(x, 1, hidden), _strided(x, stride, hidden), z, [4 * hidden + 2 * outputs]

    return _operator("inverted_residual", shapes, outputs=5, kept=[1, 2, 3])


def inverted_residual_grad() -> Any:
    """x, three times (weight, gamma, beta), y1, y2, y3, saved, constants, dz -> dx, and d of the nine."""
    return _operator("inverted_residual_grad", lambda x, *rest: (x, _flat(*rest[:9])), outputs=2)


def inverted_residual_eval(*, stride: int) -> Any:
    """As `inverted_residual` with the running statistics; has no gradient."""

    def shapes(x, w1, g1, b1, m1, v1, w2, g2, b2, m2, v2, w3, *_):
        return _strided(x, stride, w3[0])

    return _operator("inverted_residual_eval", shapes)


def transformer_layer() -> Any:
    """x (R, N, D), key, salts, constants, the layer's 16 parameters -> y (R, N, D), and four that are kept."""

    def shapes(x, key, salts, constants, *parameters):
        rows, tokens, features = x
        hidden = parameters[12][0]
        return x, [rows, tokens, 3 * features], x, x, [rows, tokens, hidden]

    return _operator("transformer_layer", shapes, outputs=5)


def transformer_layer_grad() -> Any:
    """The inputs of `transformer_layer`, the four, dy -> dx, and d of the parameters."""
    return _operator("transformer_layer_grad", lambda x, *rest: (x, _flat(*rest[3:19])), outputs=2)


def transformer_layer_eval() -> Any:
    """As `transformer_layer` without dropout; has no gradient."""
    return _operator("transformer_layer_eval", lambda x, *_: x)


def to_patches() -> Any:
    """x (B, H, W, D) -> (B * 4, N, D), a sequence for each place in the 2x2 patches; odd sides are resized before."""
    return _operator("to_patches", _patches)


def to_patches_grad() -> Any:
    """dy, like (B, H, W, D) -> dx."""
    return _operator("to_patches_grad", lambda dy, like: like)


def from_patches() -> Any:
    """y (B * 4, N, D), like (B, H, W, D) -> (B, H, W, D)."""
    return _operator("from_patches", lambda y, like: like)


def from_patches_grad() -> Any:
    """dx (B, H, W, D) -> dy (B * 4, N, D)."""
    return _operator("from_patches_grad", _patches)


def project() -> Any:
    """x (B, H, W, I), weight (O, I, 1, 1) -> (B, H, W, O)."""
    return _operator("project", lambda x, w: [*x[:-1], w[0]])


def project_grad() -> Any:
    """x, weight, dy -> dx, dweight."""
    return _operator("project_grad", lambda x, w, dy: (x, w), outputs=2)


def layer_norm() -> Any:
    """x (.., D), gamma, beta, constants -> the same, mean, rstd."""
    return _operator("layer_norm", lambda x, g, b, c: (x, x[:-1], x[:-1]), outputs=3)


def layer_norm_grad() -> Any:
    """x, gamma, beta, constants, mean, rstd, dy -> dx, and d of gamma and beta."""
    return _operator("layer_norm_grad", lambda x, g, b, *_: (x, _flat(g, b)), outputs=2)


def pool() -> Any:
    """x (B, H, W, C), key, salts, constants -> dropout(mean over pixels) (B, C)."""
    return _operator("pool", lambda x, *_: [x[0], x[3]])


def pool_grad() -> Any:
    """The inputs of `pool`, dy -> dx."""
    return _operator("pool_grad", lambda x, *_: x)


def normalise() -> Any:
    """images (B, H, W, 3) uint8, scale (3,), shift (3,), order (3,) int32 -> (B, H, W, 3); has no gradient."""
    return _operator("normalise", lambda x, *_: x)


def flatten() -> Any:
    """loss (), gradients -> (1 + their size,); has no gradient."""
    return _operator("flatten", lambda *inputs: _flat(*inputs))


def all_reduce() -> Any:
    """x (N,) -> its sum over the workers, to the bit the same for all. It fails once `patience_s` have passed."""
    return _operator("all_reduce", lambda x: x)


def update(optimizer: str) -> Any:
    """flat, lr, decay, t, constants, factors, decays, parameters, moments -> (1,): gradient norm.

    Clips, and moves parameters and moments in place. `optimizer` is adamw, sgd, lion or lamb.
    """
    return _operator(optimizer, lambda *_: [1])


def average() -> Any:
    """momentum (), norm (), averages, values -> (1,): averages += momentum * (values - averages), in place.

    The norm is that of the update after which it comes.
    """
    return _operator("average", lambda *_: [1])


def _strided(x: list[int], stride: int, channels: int) -> list[int]:
    return [x[0], -(-x[1] // stride), -(-x[2] // stride), channels]


def _flat(*shapes: list[int]) -> list[int]:
    return [sum(map(math.prod, shapes))]


def _patches(x: list[int]) -> list[int]:
    return [x[0] * 4, -(-x[1] // 2) * -(-x[2] // 2), x[3]]
