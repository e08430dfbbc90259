"""The one error of minidl.onnx."""


class OnnxError(ValueError):
    """What cannot be said in ONNX, or cannot be read from it: names the op, the rule and what was found."""
