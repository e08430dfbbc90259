"""Elementwise arithmetic with broadcasting, and the matrix product.

    add        z = x + y        gx = gz                 gy = gz
    sub        z = x - y        gx = gz                 gy = -gz
    mul        z = x * y        gx = gz * y             gy = gz * x
    div        z = x / y        gx = gz / y             gy = -gz * x / y^2 = -gz * z / y
    rounded_div   z = x / y without its fraction   gx = 0   gy = 0
    pow        z = x ^ p        gx = gz * p * x^(p-1)   gp = gz * z * ln x
    neg        y = -x           gx = -gy
    exp        y = e^x          gx = gy * y
    log        y = ln x         gx = gy / x
    sqrt       y = sqrt(x)      gx = gy / (2 y)
    abs        y = |x|          gx = gy * sign(x)       (0 at 0 and at NaN)
    sin        y = sin x        gx = gy * cos x
    cos        y = cos x        gx = -gy * sin x
    clamp      y = x in bounds  gx = gy where lo <= x <= hi, else 0    a bound that is a tensor gets gy where y is the bound
    maximum    z = max(x, y)    gx = gz where x > y, gz / 2 where x = y, else 0      gy likewise; minimum is alike
    remainder  z = x - y floor(x / y)   gx = gz    gy = -gz * floor(x / y)
    cast       y = x            gx = gy                 (each in its own dtype)
    matmul     z = x @ y        gx = gz @ y^T           gy = x^T @ gz

An operand that was broadcast takes part in several outputs, so its gradient is the sum over them: `unbroadcast`.
Each operand may be a tensor, a NumPy array or a number. The result's dtype is PyTorch's (minidl/dtypes.py), and floats in a
division, in exp, log and sqrt. matmul takes two of one dtype.
"""

import operator
from typing import Any

import numpy as np

from minidl.device import Array, array_module
from minidl.dtypes import DEFAULT_FLOAT, result_type
from minidl.grad_mode import is_grad_enabled
from minidl.kernels import fastest
from minidl.tensor import Function, Tensor, check_real, common_device

Operand = Tensor | np.ndarray | np.generic | float  # and CuPy's arrays


def sum_along(x: Array, axis: int | tuple[int, ...], keepdims: bool = False) -> Array:
    """The sum of x along one axis or several."""
    return x.sum(axis=axis, keepdims=keepdims)


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum g over the axes along which an operand of this shape was broadcast."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    stretched = tuple(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1)
    return fastest(sum_along, g)(g, (*range(extra), *stretched), keepdims=True).reshape(shape)


def _shape(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())


def _broadcasts(x: tuple[int, ...], y: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(x), reversed(y), strict=False))


def _check_broadcast(op: str, x: Any, y: Any) -> None:
    if not _broadcasts(_shape(x), _shape(y)):
        raise RuntimeError(f"{op}: sizes must be equal or 1, counted from the last axis, got x {_shape(x)}, y {_shape(y)}")


class AddFunction(Function):
    name = "add"

    def forward(ctx, x: Array, y: Array) -> Array:
        ctx.shapes = _shape(x), _shape(y)
        return x + y

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        gx = unbroadcast(gz, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gy = unbroadcast(gz, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gy


class SubFunction(Function):
    name = "sub"

    def forward(ctx, x: Array, y: Array) -> Array:
        ctx.shapes = _shape(x), _shape(y)
        return x - y

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        gx = unbroadcast(gz, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gy = unbroadcast(-gz, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gy


class MulFunction(Function):
    """x * y, element by element.

    Saved
        x   gy = gz * x: each factor's gradient is the other factor. Kept only if y needs a gradient.
        y   gx = gz * y: each factor's gradient is the other factor. Kept only if x needs a gradient.
    """

    name = "mul"

    def forward(ctx, x: Array, y: Array) -> Array:
        ctx.shapes = _shape(x), _shape(y)
        ctx.save(x if ctx.needs_grad[1] else None, y if ctx.needs_grad[0] else None)
        return x * y

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        x, y = ctx.saved
        gx = unbroadcast(gz * y, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gy = unbroadcast(gz * x, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gy


class DivFunction(Function):
    """x / y, element by element.

    Saved
        y   gx = gz / y, and gy = -gz * z / y.
        z   gy = -gz * z / y: with the quotient kept, x need not be. Kept only if y needs a gradient.
    """

    name = "div"

    def forward(ctx, x: Array, y: Array) -> Array:
        ctx.shapes = _shape(x), _shape(y)
        z = x / y
        ctx.save(y, z if ctx.needs_grad[1] else None)
        return z

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        y, z = ctx.saved
        gx = unbroadcast(gz / y, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gy = unbroadcast(-gz * z / y, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gy


class RoundedDivFunction(Function):
    """x / y without its fraction: rounded down, or towards 0. It is flat between its steps, so both gradients are 0."""

    name = "rounded_div"
    kinked = True

    def forward(ctx, x: Array, y: Array, down: bool) -> Array:
        ctx.shapes = _shape(x), _shape(y)
        if down:
            return x // y
        z = x / y
        return array_module(z).trunc(z) if _is_float(x, y) else _integers_to_0(x, y)

    def backward(ctx, gz: Array) -> tuple[Array, Array]:
        gx, gy = (array_module(gz).zeros(shape, gz.dtype) for shape in ctx.shapes)
        return gx, gy


def _is_float(*operands: Any) -> bool:
    return any(isinstance(z, float) or getattr(z, "dtype", np.dtype(int)).kind == "f" for z in operands)


def _integers_to_0(x: Array, y: Array) -> Array:
    """x / y of integers, rounded towards 0: one more than the quotient rounded down where that is negative and not exact."""
    z = x // y
    return z + ((z < 0) & (z * y != x))


class PowFunction(Function):
    """x ** p. Where x is 0, gp is 0: for p > 0 the limit of x^p ln x, for p = 0 PyTorch's choice.

    Saved
        x   gx = gz * p * x^(p-1), and gp = gz * z * ln x.
        p   gx = gz * p * x^(p-1): the exponent is a factor, and one less the new exponent.
        z   gp = gz * z * ln x: the power is not computed again. Kept only if p needs a gradient.
    """

    name = "pow"

    def forward(ctx, x: Array, p: Array) -> Array:
        ctx.shapes = _shape(x), _shape(p)
        z = x**p
        ctx.save(x, p, z if ctx.needs_grad[1] else None)
        return z

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        x, p, z = ctx.saved
        xp = array_module(gz)
        gx = gp = None
        if ctx.needs_grad[0]:
            exponent = p - 1 + (p == 0)  # where p is 0 the slope is 0, but x^-1 at x = 0 would make it 0 * inf
            gx = unbroadcast(gz * p * x**exponent, ctx.shapes[0])
        if ctx.needs_grad[1]:
            flat = (x == 0) & (p >= 0)
            gp = unbroadcast(gz * xp.where(flat, 0, z * xp.log(xp.where(flat, 1, x))), ctx.shapes[1])
        return gx, gp


class NegFunction(Function):
    name = "neg"

    def forward(ctx, x: Array) -> Array:
        return -x

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (-gy,)


class ExpFunction(Function):
    """e to the power x.

    Saved
        y   gx = gy * y: the exponential is its own slope.
    """

    name = "exp"

    def forward(ctx, x: Array) -> Array:
        y = array_module(x).exp(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (gy * y,)


class LogFunction(Function):
    """The natural logarithm.

    Saved
        x   gx = gy / x.
    """

    name = "log"

    def forward(ctx, x: Array) -> Array:
        ctx.save(x)
        return array_module(x).log(x)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (gy / x,)


class SqrtFunction(Function):
    """The square root.

    Saved
        y   gx = gy / (2 y), from the output alone: x need not be kept.
    """

    name = "sqrt"

    def forward(ctx, x: Array) -> Array:
        y = array_module(x).sqrt(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (gy / (2 * y),)


class AbsFunction(Function):
    """|x|; its slope at 0 is 0, and at NaN, PyTorch's choice.

    Saved
        sign   gx = gy * sign(x): the slope is 1, -1, or 0 where x is 0 or NaN.
    """

    name = "abs"
    kinked = True

    def forward(ctx, x: Array) -> Array:
        ctx.save((x > 0).astype(x.dtype) - (x < 0) if ctx.needs_grad[0] else None)
        return abs(x)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (sign,) = ctx.saved
        return (gy * sign,)


class SinFunction(Function):
    """The sine.

    Saved
        x   gx = gy * cos x.
    """

    name = "sin"

    def forward(ctx, x: Array) -> Array:
        ctx.save(x)
        return array_module(x).sin(x)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (gy * array_module(x).cos(x),)


class CosFunction(Function):
    """The cosine.

    Saved
        x   gx = -gy * sin x.
    """

    name = "cos"

    def forward(ctx, x: Array) -> Array:
        ctx.save(x)
        return array_module(x).cos(x)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (-gy * array_module(x).sin(x),)


class ClampFunction(Function):
    """x cut off at a lower and an upper bound, None for no bound. At a bound the gradient passes; NaN has none.

    Where the lower bound is above the upper one, y is the upper one.

    Saved
        inside   gx = gy where x lies within the bounds, which included; elsewhere y is a bound.
        low      glow = gy where y is the lower bound. Kept only if a bound needs a gradient.
        high     ghigh = gy where y is the upper bound. Kept only if a bound needs a gradient.
        x        Which bound it was is read from all three. Kept only if a bound needs a gradient.
    """

    name = "clamp"
    kinked = True

    def forward(ctx, x: Array, low: Any, high: Any) -> Array:
        ctx.shapes = x.shape, _shape(low), _shape(high)
        inside = (True if low is None else x >= low) & (True if high is None else x <= high)
        asked = any(ctx.needs_grad[1:])
        ctx.save(inside, low if asked else None, high if asked else None, x if asked else None)
        xp = array_module(x)
        y = x if low is None else xp.maximum(x, low)
        return y if high is None else xp.minimum(y, high)

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        inside, low, high, x = ctx.saved
        gx = glow = ghigh = None
        if ctx.needs_grad[0]:
            gx = unbroadcast(gy * inside, ctx.shapes[0])
        if ctx.needs_grad[1]:
            glow = unbroadcast(gy * ((x < low) & (True if high is None else low < high)), ctx.shapes[1])
        if ctx.needs_grad[2]:
            ghigh = unbroadcast(gy * ((x > high) | (False if low is None else high < low)), ctx.shapes[2])
        return gx, glow, ghigh


class ExtremeOfTwoFunction(Function):
    """The larger, or the smaller, of two. Where they are equal each gets half of the gradient; where one is NaN, which wins, no
    comparison holds and both get all of it, as in PyTorch.

    Saved
        x   Which of the two it was is read from both.
        y   Which of the two it was is read from both.
    """

    name = "maximum"
    kinked = True

    def forward(ctx, x: Array, y: Array, largest: bool) -> Array:
        ctx.largest = largest
        ctx.save(x, y)
        xp = array_module(x)
        return xp.maximum(x, y) if largest else xp.minimum(x, y)

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        x, y = ctx.saved
        x_loses, y_loses = (x < y, x > y) if ctx.largest else (x > y, x < y)
        shared = array_module(gz).where(x == y, gz / 2, gz)
        gx = unbroadcast(shared * ~x_loses, _shape(x)) if ctx.needs_grad[0] else None
        gy = unbroadcast(shared * ~y_loses, _shape(y)) if ctx.needs_grad[1] else None
        return gx, gy


class RemainderFunction(Function):
    """What is left of x after whole multiples of y; it has y's sign.

    Saved
        whole   gy = -gz * floor(x / y): z loses one y for each whole multiple. Kept only if y needs a gradient.
    """

    name = "remainder"
    kinked = True

    def forward(ctx, x: Array, y: Array) -> Array:
        ctx.shapes = _shape(x), _shape(y)
        ctx.save(x // y if ctx.needs_grad[1] else None)
        return x % y

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        (whole,) = ctx.saved
        gx = unbroadcast(gz, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gy = unbroadcast(-gz * whole, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gy


class CastFunction(Function):
    """Another dtype; the engine casts the gradient back."""

    name = "cast"

    def forward(ctx, x: Array, dtype: Any) -> Array:
        return x.astype(dtype)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (gy,)


def matrix_product(x: Array, y: Array) -> Array:
    """x @ y."""
    return x @ y


class MatmulFunction(Function):
    """(..., n, k) @ (..., k, m) -> (..., n, m); leading axes broadcast. 1-d operands are a row or a column.

    Saved
        x   gy = x^T @ gz: the right factor's gradient needs the left one.
        y   gx = gz @ y^T: the left factor's gradient needs the right one.
    """

    name = "matmul"

    def forward(ctx, x: Array, y: Array) -> Array:
        ctx.save(x, y)
        return fastest(matrix_product, x)(x, y)

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        x, y = ctx.saved
        row, column = x.ndim == 1, y.ndim == 1
        x2 = x[None, :] if row else x  # (..., n, k)
        y2 = y[:, None] if column else y  # (..., k, m)
        gz = gz[..., None, :] if row and not column else gz
        gz = gz.reshape(1, 1) if row and column else gz[..., None] if column else gz  # (..., n, m)
        gx = gy = None
        product = fastest(matrix_product, gz)
        if ctx.needs_grad[0]:
            gx = unbroadcast(product(gz, y2.swapaxes(-1, -2)), x2.shape).reshape(x.shape)
        if ctx.needs_grad[1]:
            gy = unbroadcast(product(x2.swapaxes(-1, -2), gz), y2.shape).reshape(y.shape)
        return gx, gy


def _operand(value: Any, other: Any) -> Any:
    """A number stays one, Python's, which has no dtype to impose; an array goes to the other operand's device."""
    if isinstance(value, (Tensor, int, float, np.generic)):
        return value.item() if isinstance(value, np.generic) else value
    return Tensor(value, device=other.device)


def operands(op: str, x: Any, y: Any) -> tuple[Any, Any]:
    """Two operands, one of them a tensor: checked to broadcast, arrays made tensors, and all in the dtype of the result."""
    tensor = x if isinstance(x, Tensor) else y
    x, y = _operand(x, tensor), _operand(y, tensor)
    _check_broadcast(op, x, y)
    dtype = result_type(x, y)
    return _in_dtype(x, dtype), _in_dtype(y, dtype)


def _in_dtype(x: Any, dtype: np.dtype) -> Any:
    """A tensor of this dtype, or a number that fits in it: an integer that is too large wraps around, as PyTorch's."""
    if isinstance(x, Tensor):
        return cast(x, dtype)
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= x <= np.iinfo(dtype).max:
        return int(np.array(x).astype(dtype))
    return x


def _is_bool(x: Any) -> bool:
    return isinstance(x, bool) or getattr(x, "dtype", None) == np.bool_


def _check_no_0(op: str, x: Any, y: Any) -> None:
    """RuntimeError for integers that are divided by 0: they have no infinity, and NumPy's answer would be 0."""
    if _is_float(x, y):
        return
    if not isinstance(y, Tensor):
        zeros = y == 0
    else:
        with y.device.active():
            zeros = bool((y.data == 0).any())
    if zeros:
        raise RuntimeError(
            f"{op}: integers can't be divided by 0, got x {_shape(x)}, y {_shape(y)} with a 0; convert one to floats"
        )


def _binary(op: type[Function], x: Any, y: Any) -> Tensor:
    return op.apply(*operands(op.name, x, y))


def as_floats(x: Tensor) -> Tensor:
    """x itself, or float32 in place of ints, as in PyTorch; NumPy would make float64."""
    return x if x.dtype.kind == "f" else cast(x, DEFAULT_FLOAT)


def add(x: Operand, y: Operand, *, alpha: float = 1) -> Tensor:
    """x + alpha * y."""
    return _binary(AddFunction, x, y if alpha == 1 else mul(y, alpha))


def sub(x: Operand, y: Operand, *, alpha: float = 1) -> Tensor:
    """x - alpha * y. RuntimeError for bools."""
    if _is_bool(x) or _is_bool(y):
        raise RuntimeError("sub: bools can't be subtracted; x ^ y is where they differ, x.long() are numbers")
    return _binary(SubFunction, x, y if alpha == 1 else mul(y, alpha))


def mul(x: Operand, y: Operand) -> Tensor:
    """x * y, element by element."""
    return _binary(MulFunction, x, y)


def div(x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """x / y; floats, also of ints.

    rounding_mode : "floor" rounds down, "trunc" towards 0: the dtype is then that of x and y together, and the gradients are 0.

    RuntimeError: another mode, bools to be rounded, integers to be rounded and divided by 0.
    """
    x, y = operands("div", x, y)
    if rounding_mode is None:
        return DivFunction.apply(*(as_floats(z) if isinstance(z, Tensor) else z for z in (x, y)))
    if rounding_mode not in ("floor", "trunc"):
        raise RuntimeError(f"div: rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")
    if _is_bool(x) and _is_bool(y):
        raise RuntimeError("div: x and y are bools, which can't be rounded; x.long() are numbers")
    _check_no_0("div", x, y)
    return RoundedDivFunction.apply(x, y, down=rounding_mode == "floor")


def pow(x: Operand, y: Operand) -> Tensor:
    """x ** y. RuntimeError for two bools, and for an integer to a negative integer power."""
    a, b = operands("pow", x, y)
    if _is_bool(a) and _is_bool(b):
        raise RuntimeError("pow: x and y are bools; x.long() are numbers")
    try:
        return PowFunction.apply(a, b)
    except ValueError as error:  # NumPy's word for it
        raise RuntimeError(f"pow: {error} (x of {getattr(a, 'dtype', 'int')})") from None


def neg(x: Tensor) -> Tensor:
    """-x. RuntimeError for bools."""
    if _is_bool(x):
        raise RuntimeError("neg: bools can't be negated; ~x is what is False")
    return NegFunction.apply(x)


def exp(x: Tensor) -> Tensor:
    """e ** x."""
    return ExpFunction.apply(as_floats(x))


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return LogFunction.apply(as_floats(x))


def sqrt(x: Tensor) -> Tensor:
    """The square root."""
    return SqrtFunction.apply(as_floats(x))


def abs_(x: Tensor) -> Tensor:
    """|x|; its gradient at 0 is 0."""
    return AbsFunction.apply(x)


def sin(x: Tensor) -> Tensor:
    """The sine of x, in radians."""
    return SinFunction.apply(as_floats(x))


def cos(x: Tensor) -> Tensor:
    """The cosine of x, in radians."""
    return CosFunction.apply(as_floats(x))


def clamp(x: Tensor, min: float | Tensor | None = None, max: float | Tensor | None = None) -> Tensor:
    """x cut off below at `min` and above at `max`: numbers or tensors, which broadcast, or None for no bound.

    The dtype is that of x and the bounds together: ints cut off at a float become floats.
    RuntimeError for no bound at all, and for sizes that don't broadcast. TypeError for a number beside a tensor.
    """
    bounds = [bound for bound in (min, max) if bound is not None]
    if not bounds:
        raise RuntimeError("clamp: at least one of min and max must be given, got None and None")
    tensors = [bound for bound in bounds if isinstance(bound, Tensor)]
    if tensors and len(tensors) < len(bounds):
        raise TypeError("clamp: min and max must be two numbers or two tensors, got one of each")
    for bound in tensors:
        _check_broadcast("clamp", x, bound)
    dtype = result_type(x, *bounds)
    x = cast(x, dtype)
    if tensors:
        low, high = (bound if bound is None else cast(bound, dtype) for bound in (min, max))  # type: ignore[arg-type]
        return ClampFunction.apply(x, low, high)
    if x.dtype.kind in "iu":  # NumPy refuses bounds that the dtype can't hold
        limits = np.iinfo(x.dtype)
        min, max = (None if bound is None else int(np.clip(bound, limits.min, limits.max)) for bound in (min, max))
    return ClampFunction.apply(x, min, max)


def maximum(x: Operand, y: Operand) -> Tensor:
    """The larger of x and y, element by element; where they are equal each gets half of the gradient."""
    return ExtremeOfTwoFunction.apply(*operands("maximum", x, y), largest=True)


def minimum(x: Operand, y: Operand) -> Tensor:
    """The smaller of x and y, element by element; where they are equal each gets half of the gradient."""
    return ExtremeOfTwoFunction.apply(*operands("minimum", x, y), largest=False)


def remainder(x: Operand, y: Operand) -> Tensor:
    """x % y, with y's sign, as Python's. RuntimeError for integers divided by 0."""
    x, y = operands("remainder", x, y)
    _check_no_0("remainder", x, y)
    return RemainderFunction.apply(x, y)


def floor_divide(x: Operand, y: Operand) -> Tensor:
    """x // y, rounded down. It is flat between its steps, so there is no gradient: RuntimeError if one would be asked for.

    RuntimeError also for integers divided by 0.
    """
    x, y = operands("floor_divide", x, y)
    _check_no_0("floor_divide", x, y)
    if is_grad_enabled() and any(isinstance(z, Tensor) and z.requires_grad for z in (x, y)):
        raise RuntimeError("floor_divide: it has no gradient; detach x and y, or use x / y")
    device = common_device("floor_divide", (x, y))
    with device.active():
        return Tensor(operator.floordiv(*(z.data if isinstance(z, Tensor) else z for z in (x, y))), device=device)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype; x itself if it has it. Only floats have a gradient: at another dtype the graph ends, as PyTorch's."""
    wanted = np.dtype(dtype)
    check_real("to", wanted)
    if x.dtype == wanted:
        return x
    return CastFunction.apply(x if wanted.kind == "f" else x.detach(), dtype=wanted)


def matmul(x: Operand, y: Operand) -> Tensor:
    """The matrix product x @ y. RuntimeError where sizes don't fit, or dtypes differ."""
    tensor = x if isinstance(x, Tensor) else y
    a, b = _operand(x, tensor), _operand(y, tensor)
    if not _shape(a) or not _shape(b):
        raise RuntimeError(f"matmul: both need at least 1 axis, got x {_shape(a)}, y {_shape(b)}")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise RuntimeError(f"matmul: x has {a.shape[-1]} columns, y has {inner} rows, got x {a.shape}, y {b.shape}")
    if not _broadcasts(a.shape[:-2], b.shape[:-2]):
        raise RuntimeError(f"matmul: axes before the last two must be equal or 1, got x {a.shape}, y {b.shape}")
    if a.dtype != b.dtype:
        raise RuntimeError(f"matmul: x and y must have one dtype, got {a.dtype} and {b.dtype}; convert one with .to(dtype)")
    return MatmulFunction.apply(a, b)
