"""What is studied: AlexNet from the examples, or what a function in a file makes; a batch for it, and a loss of its output."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

import minidl.nn.functional as F
from minidl import random
from minidl.nn import Module
from minidl.tensor import Tensor

ALEXNET = "alexnet"
_IN_WHEEL = Path(__file__).with_name("alexnet")  # setup.py puts it there
_IN_CHECKOUT = Path(__file__).parents[2] / "examples" / "alexnet"
ALEXNET_FILE = (_IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT) / "model.py"


def load_model(name: str) -> Module:
    """ "alexnet", or "net.py:make": what make() of that file returns.

    FileNotFoundError: no such file. ValueError: no such function, or a name of neither form. TypeError: it returned no Module.
    Whatever the file itself raises passes through.
    """
    if name == ALEXNET:
        return module_from(ALEXNET_FILE).AlexNet()
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ValueError(f"load_model: a model is {ALEXNET} or file.py:function, got {name!r}")
    make = getattr(module_from(Path(path)), function, None)
    if not callable(make):
        raise ValueError(f"load_model: {path} must have a function {function!r}, which returns the model")
    model = make()
    if not isinstance(model, Module):
        raise TypeError(f"load_model: {name} must return a minidl.nn.Module, got {type(model).__name__}")
    return model


@contextmanager
def left_as_it_was(model: Module) -> Iterator[None]:
    """The model's gradients, modes and buffers and the random state are afterwards what they were before the block."""
    parameters = list(model.parameters())
    buffers = [(buffer, buffer.data.copy(order="K")) for buffer in model.buffers()]  # running means follow each training step
    gradients, modes = [p.grad for p in parameters], [(m, m.training) for m in model.modules()]
    state = random.default_generator.state()
    try:
        yield
    finally:
        random.default_generator.set_state(state)
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
        for module, mode in modes:
            module.training = mode
        for buffer, values in buffers:
            with buffer.device.active():
                buffer.data[...] = values


def random_batch(model: Module, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers in the dtype and on the device of the model's first parameter; always the same ones."""
    first = next(model.parameters(), Tensor(np.float32(0)))
    return Tensor(random.Generator(0).normal(shape, first.dtype), device=first.device)


def batch_for(model: Module, image: np.ndarray | Tensor) -> Tensor:
    """One image as the model's first parameter would have it. A model without parameters gives the image a gradient."""
    first = next(model.parameters(), Tensor(np.float32(0)))
    host = image.detach().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if host.ndim == 0 or host.shape[0] != 1:
        raise ValueError(f"study: a batch of 1 image is needed, its first axis 1, got {host.shape}")
    trained = any(p.requires_grad for p in model.parameters())
    return Tensor(host, requires_grad=not trained, device=first.device, dtype=first.dtype)


def loss_of(scores: Tensor, label: int | None) -> tuple[Tensor, int | None]:
    """The loss, and the label that it is about."""
    if scores.ndim == 2 and scores.shape[1] > 1:
        classes = scores.shape[1]
        label = int(scores.device.to_host(scores.data).argmax()) if label is None else label
        if not 0 <= label < classes:
            raise ValueError(f"study: label must be in [0, {classes - 1}], a class of the model's {classes}, got {label}")
        return F.cross_entropy(scores, np.array([label])), label
    if label is not None:
        raise ValueError(f"study: a label needs scores of (1, classes), got label {label} and an output of {scores.shape}")
    weights = random.Generator(0).normal(scores.shape, scores.dtype)
    return (scores * Tensor(weights, device=scores.device)).sum(), None


def module_from(path: Path) -> ModuleType:
    """The file as a module; files beside it can be imported from it, as when it is run."""
    if not path.is_file():
        raise FileNotFoundError(f"load_model: {path} is not a file")
    spec = importlib.util.spec_from_file_location(f"studied_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"load_model: {path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
