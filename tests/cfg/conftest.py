"""Nets of one layer: its section between the images and a softmax that a cost reads, so the scores are the layer's output."""

from types import SimpleNamespace

import pytest

import minidl.cfg
from minidl import Tensor
from minidl.gradcheck import gradcheck_leaves

ABOVE = "[data]\ntype=data\ndataIdx=0\n[labels]\ntype=data\ndataIdx=1\n"
BELOW = "[probs]\ntype=softmax\ninputs={}\n[cost]\ntype=cost.logreg\ninputs=labels,probs\n"


@pytest.fixture
def read(tmp_path):
    """read(layers, params, ...) of texts -> Net. The data above are added, and below a softmax of layer `last`, and a cost."""

    def read(layers: str, params: str = "", last: str = "y", **settings):
        (tmp_path / "layers.cfg").write_text(ABOVE + layers + BELOW.format(last))
        (tmp_path / "params.cfg").write_text(params + "[cost]\ncoeff=1\n")
        return minidl.cfg.read(tmp_path / "layers.cfg", tmp_path / "params.cfg", **settings)

    return read


@pytest.fixture
def run(read, rng, device):
    """run(text, params): layer y of these keys in float64 and in evaluation -> its images x, its output y, its weights w."""

    def run(text: str, params: str = "", size: int = 6, above: str = "", above_params: str = ""):
        params = above_params + (f"[y]\n{params}" if params else "")
        net = read(f"{above}[y]\n{text}", params, image_size=size, devices=device)
        net.module.double().eval()
        for p in net.module.parameters():
            minidl.nn.init.copy_(p, rng.normal(size=p.shape))
        x = Tensor(rng.normal(size=(2, 3, size, size)), device=device, requires_grad=True)
        y = net.module(x).detach().numpy().reshape(2, *net.module.y.shape)
        weights = {name: p.detach().numpy() for name, p in net.module.named_parameters()}
        return SimpleNamespace(net=net, leaf=x, x=x.detach().numpy(), y=y, w=weights)

    return run


@pytest.fixture
def assert_gradients():
    """assert_gradients(what run gave): of the images and of every weight, against slopes."""

    def check(case) -> None:
        leaves = {"x": case.leaf, **dict(case.net.module.named_parameters())}
        gradcheck_leaves(lambda: case.net.module(case.leaf), leaves)

    return check
