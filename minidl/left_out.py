"""What PyTorch has and minidl leaves out on purpose: asked for, each says so, and what to do instead.

A module that ends in `answer_for(__name__)` answers for the names that it lacks. Type checkers do not see it, and name
them. Errors are AttributeErrors, so that `hasattr` says False.
"""

import sys
from typing import Any, NoReturn

_SPARSE = "there are no sparse tensors; a tensor of zeros and a boolean mask says the same in more memory"
_COMPLEX = "there are no complex tensors; keep real and imaginary parts in two tensors"
_COMPILE = "nothing is compiled: every op runs as it is called, by the fastest kernel that minidl.kernels has for it"
_AUTOGRAD = "Function, gradcheck and detect_anomaly are minidl's own; for autograd.grad call backward(inputs=...)"

REASONS = {
    "compile": _COMPILE,
    "jit": _COMPILE,
    "sparse": _SPARSE,
    "sparse_coo_tensor": _SPARSE,
    "sparse_csr_tensor": _SPARSE,
    "complex": _COMPLEX,
    "complex64": _COMPLEX,
    "complex128": _COMPLEX,
    "cfloat": _COMPLEX,
    "cdouble": _COMPLEX,
    "autograd": _AUTOGRAD,
}
"""Of a name in PyTorch: why minidl has none, and what to do."""


def answer_for(module: str) -> None:
    """The module's AttributeErrors have the reason where a name is left out on purpose (PEP 562)."""

    def missing(name: str) -> NoReturn:
        reason = REASONS.get(name) or _other_dimensions(sys.modules[module], name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}{': ' + reason if reason else ''}")

    vars(sys.modules[module])["__getattr__"] = missing


def _other_dimensions(module: Any, name: str) -> str | None:
    """Convolution and pooling of 1 and 3 dimensions, where the module has the layer of 2."""
    twin = f"{name[:-2]}2d"
    if name.endswith("1d") and hasattr(module, twin):
        return f"layers are of images; {twin} does it with x.unsqueeze(2), whose height is 1, and a window (1, k)"
    if name.endswith("3d") and hasattr(module, twin):
        return f"layers are of images; {twin} is the one for 2 dimensions, and volumes are not taken"
    return None
