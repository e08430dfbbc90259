"""Networks to and from ONNX, the Open Neural Network Exchange format that other programs run.

    import minidl.onnx
    minidl.onnx.export(model, images, "alexnet.onnx")
    model = minidl.onnx.load("alexnet.onnx")

It needs the packages of the extra `onnx` (pip install "minidl[onnx]"), and `import minidl` does not load it.
"""

try:
    import onnx as _onnx  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('minidl.onnx needs the onnx package: pip install "minidl[onnx]"', name="onnx") from error

from minidl.onnx.errors import OnnxError as OnnxError
from minidl.onnx.export import export as export
from minidl.onnx.load import OnnxModel as OnnxModel
from minidl.onnx.load import load as load
