"""Weights of other programs, as minidl's: torchvision's and Caffe's AlexNet, and plain nets of Keras.

    python -m minidl.convert alexnet.pth alexnet.safetensors

Each kind of file has one function, which returns {name: array} under minidl's names, those of `AlexNet.merged_state_dict` in
examples/alexnet/model.py: "conv1.weight" (O, C, KH, KW) to "fc8.bias". `save_weights` writes them, `load_weights` reads them
back. No file is trusted: nothing in it is run, and what does not fit is a `BadFileError` that names the file and the tensor.
"""

from minidl.convert.caffe import from_caffe, mean_from_caffe
from minidl.convert.keras import from_keras
from minidl.convert.pytorch import from_torchvision, read_pth, to_torchvision, write_pth
from minidl.convert.weights import load_weights, save_weights

__all__ = [
    "from_caffe",
    "from_keras",
    "from_torchvision",
    "load_weights",
    "mean_from_caffe",
    "read_pth",
    "save_weights",
    "to_torchvision",
    "write_pth",
]
