"""The layer and parameter files of the program that trained AlexNet in 2012, read as a module and its optimiser's settings.

    net = minidl.cfg.read("layers.cfg", "params.cfg")
    optimizer = SGD(net.groups(), lr=0, rule="2012")
    loss = net.loss(net.module(images), labels)

How a file becomes a module, in the order of reading:

    sections.py   text -> named sections of keys, and every check of a single key
    neurons.py    "tanh[1,2]" -> a function
    layers.py     a section -> a layer: its sizes, its weights, its formula
    net.py        layers in order -> a module; sections of the parameter file -> groups of an optimiser

The format is in docs/cfg.md. Source: `layer.py`, `layers/` and `include/neuron.cuh` of computerhistory/AlexNet-Source-Code, and
`example-layers/` of cuda-convnet.
"""

from minidl.cfg.net import Net as Net
from minidl.cfg.net import Network as Network
from minidl.cfg.net import read as read
