"""Embedding: a vector for each id, looked up in a table that is learned.

Shapes
    ids (...) ints   w (V, D)   y (..., D)

Forward
    y[r] = w[ids[r]]                 the product of a row that is 1 at ids[r] and 0 elsewhere with w, without multiplying

Backward
    gw[v] = sum of gy[r] over the r with ids[r] = v            0 for an id that does not occur, and for padding_idx

Saved
    ids   gy[r] goes to the row of w that was looked up; w itself is not needed, as y is linear in it.

Source: Bengio, Ducharme, Vincent and Jauvin, "A neural probabilistic language model", JMLR 2003, section 2 (the matrix C).
"""

from typing import Any

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.ops.reshape import add_at
from minidl.tensor import Function, Tensor


def embedding_forward(w: Array, ids: Array) -> Array:
    """w (V, D), ids (R,) in 0 ... V-1 -> y (R, D)."""
    return w[ids]


def embedding_backward(gy: Array, ids: Array, rows: int, padding_idx: int | None, by_frequency: bool) -> Array:
    """gy (R, D), ids (R,) -> gw (rows, D), that of padding_idx 0. by_frequency: each row's mean in place of its sum."""
    xp = array_module(gy)
    gw = xp.zeros((rows, gy.shape[1]), gy.dtype)
    fastest(add_at, gw)(gw, ids, gy)
    if by_frequency:
        counts = xp.zeros(rows, gy.dtype)
        fastest(add_at, counts)(counts, ids, xp.ones(len(ids), gy.dtype))
        gw /= xp.maximum(counts, 1)[:, None]
    if padding_idx is not None:
        gw[padding_idx] = 0
    return gw


class EmbeddingFunction(Function):
    name = "embedding"

    def forward(ctx, w: Array, ids: Array, padding_idx: int | None, by_frequency: bool) -> Array:
        ctx.settings = len(w), padding_idx, by_frequency
        shape, ids = ids.shape, ids.reshape(-1)
        ctx.save(ids)
        return fastest(embedding_forward, w)(w, ids).reshape(*shape, w.shape[1])

    def backward(ctx, gy: Array) -> tuple[Array, None]:
        (ids,) = ctx.saved
        gy = gy.reshape(len(ids), gy.shape[-1])
        return fastest(embedding_backward, gy)(gy, ids, *ctx.settings), None


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of weight that the ids name. The formulas are at the top of this file.

    input       : ids in 0 ... V-1, int64 or int32, any shape (...).
    weight      : (V, D).
    padding_idx : the id of filling, in -V ... V-1: its row gets no gradient.
    scale_grad_by_freq : divide each row's gradient by how often its id occurs.
    returns     : (..., D).

    `max_norm` (with its `norm_type`), which changes the weight during forward, and `sparse` gradients are left out: ValueError
    unless None and False. IndexError: an id out of range. RuntimeError: ids of another dtype, a weight that is not 2-d.
    ValueError: padding_idx out of range.
    """
    _check_left_out("embedding", max_norm, sparse)
    if input.dtype not in (np.int64, np.int32):
        raise RuntimeError(f"embedding: ids must be int64 or int32, got {input.dtype}")
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: weight must be (V, D), got {weight.shape}")
    padding_idx = _padding("embedding", padding_idx, len(weight))
    with input.device.active():
        wrong = (input.data < 0) | (input.data >= len(weight))
        if bool(wrong.any()):
            found = int(input.data.reshape(-1)[int(wrong.argmax())])
            raise IndexError(f"embedding: ids must be in [0, {len(weight) - 1}], got {found} (weight {weight.shape})")
    return EmbeddingFunction.apply(weight, input, padding_idx=padding_idx, by_frequency=scale_grad_by_freq)


def _check_left_out(op: str, max_norm: float | None, sparse: bool) -> None:
    if max_norm is not None:
        raise ValueError(f"{op}: max_norm is left out and must be None, got {max_norm}; scale the weight between steps")
    if sparse:
        raise ValueError(f"{op}: sparse gradients are left out and sparse must be False, got {sparse}")


def _padding(op: str, padding_idx: int | None, rows: int) -> int | None:
    """padding_idx in 0 ... rows-1; negative ones count from the end."""
    if padding_idx is None:
        return None
    if not shapes.is_int(padding_idx):
        raise TypeError(f"{op}: padding_idx must be an int or None, got {padding_idx!r}")
    if not -rows <= padding_idx < rows:
        raise ValueError(f"{op}: padding_idx must be in [{-rows}, {rows - 1}], got {padding_idx}")
    return int(padding_idx) % rows


class Embedding(Module):
    """embedding with a parameter weight (num_embeddings, embedding_dim), from a standard normal; the row of padding_idx is 0.

    _weight : (num_embeddings, embedding_dim), to begin with in place of random numbers; _freeze: it is not trained.

    ValueError: max_norm or sparse, which are left out; padding_idx out of range; a _weight of another shape.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_left_out("Embedding", max_norm, sparse)
        self.num_embeddings = shapes.size("Embedding", "num_embeddings", num_embeddings, 0)
        self.embedding_dim = shapes.size("Embedding", "embedding_dim", embedding_dim, 0)
        self.padding_idx = _padding("Embedding", padding_idx, num_embeddings)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        shape = (num_embeddings, embedding_dim)
        if _weight is None:
            empty = Tensor(np.empty(shape, np.float32 if dtype is None else dtype), device=device)
            self.weight = Parameter(empty, requires_grad=not _freeze)
            self.reset_parameters()
        else:
            if _weight.shape != shape:
                raise ValueError(f"Embedding: _weight must be {shape}, got {_weight.shape}")
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draw new initial values: standard normal, 0 for padding_idx."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with self.weight.device.active():
                self.weight.data[self.padding_idx] = 0

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> "Embedding":
        """A layer whose weight is `embeddings` (V, D), which is not copied; with `freeze` it is not trained."""
        if embeddings.ndim != 2:
            raise ValueError(f"Embedding: embeddings must be (V, D), got {embeddings.shape}")
        rows, columns = embeddings.shape
        return cls(
            rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight=embeddings, _freeze=freeze
        )

    def forward(self, input: Tensor) -> Tensor:
        return embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        parts += [] if self.padding_idx is None else [f"padding_idx={self.padding_idx}"]
        parts += [] if self.norm_type == 2 else [f"norm_type={self.norm_type}"]
        parts += ["scale_grad_by_freq=True"] if self.scale_grad_by_freq else []
        return ", ".join(parts)
