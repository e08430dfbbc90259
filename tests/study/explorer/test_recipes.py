"""What stands for matrices that do not come along, and which arrays have a recipe."""

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import nn
from minidl.study.explorer import recipes, values
from minidl.study.explorer.explore import explore
from minidl.study.explorer.values import from_text, inflate


@pytest.fixture
def wide(monkeypatch):
    """A page whose first layer's weights are too large for it, and the model and image."""
    for module in (recipes, values):
        monkeypatch.setattr(module, "CARRIED", 100)
    monkeypatch.setattr(recipes, "_SUMS", 100)
    minidl.manual_seed(2)
    model = nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 4))
    image = np.random.default_rng(3).normal(size=(1, 30)).astype(np.float32)
    image[0, 4] = 0
    for p in model.parameters():
        p.requires_grad = True
    x = minidl.Tensor(image, requires_grad=True)
    F.cross_entropy(model(x), np.array([1])).backward()
    return explore(nn.Sequential(nn.Flatten(), *model), image, 1).data, model, x


def carried(data, number, size):
    return inflate(from_text(data["texts"][data["values"][number]["text"]]), size)


def test_the_largest_terms_of_each_output_come_along(wide):
    data, model, x = wide
    op = next(op for op in data["ops"] if op["op"] == "linear")
    assert data["values"][op["inputs"][1]["blob"]["values"]]["how"] == "left out"
    kept = op["about"]["forward"]
    places = carried(data, kept["places"], 8 * kept["kept"]).reshape(8, -1).astype(int)
    factors = carried(data, kept["factors"], 8 * kept["kept"]).reshape(8, -1)
    w, b = (p.detach().numpy().astype("f8") for p in (model[0].weight, model[0].bias))
    image = x.detach().numpy()[0].astype("f8")
    np.testing.assert_array_equal(factors, np.take_along_axis(w, places, 1).astype("f4"))
    total = (factors * image[places]).sum(axis=1) + carried(data, kept["rest"], 8) + b
    np.testing.assert_allclose(total, w @ image + b, rtol=0, atol=1e-6)


def test_a_gradient_of_such_weights_is_a_product(wide):
    data, _, _ = wide
    op = next(op for op in data["ops"] if op["op"] == "linear")
    assert data["values"][op["leaving"][1]["values"]]["how"] == "product" and "blocks" in op["leaving"][1]


def test_python_nudges_where_the_page_can_not(monkeypatch):
    """The inputs with the largest gradients, each slope that of the loss's own linear part."""
    for module in (recipes, values):
        monkeypatch.setattr(module, "CARRIED", 100)
    minidl.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 8))
    data = explore(model, np.ones((1, 5)), 1).data
    op = [op for op in data["ops"] if op["op"] == "linear"][1]
    proofs = op["about"]["proofs"]
    assert len(proofs) == 4 and all(proof["outputs"] == 8 for proof in proofs)
    sizes = [abs(proof["analytic"]) for proof in proofs]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == pytest.approx(
        max(abs(op["leaving"][0]["distribution"][end]) for end in ("low", "high"))
    )
    for proof in proofs:
        assert proof["numeric"] == pytest.approx(proof["analytic"], rel=1e-5)


def test_sums_say_how_far_they_are_from_minidl_s(monkeypatch):
    monkeypatch.setattr(recipes, "_SUMS", 10)
    data = explore(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), np.random.default_rng(0).normal(size=(1, 3, 8, 8)), 1).data
    how = data["values"][data["ops"][0]["leaving"][1]["values"]]
    spread = data["ops"][0]["leaving"][1]["distribution"]
    assert how["how"] == "sums" and 0 < how["worst"] < 1e-5 * max(-spread["low"], spread["high"])


@pytest.mark.parametrize(("dtype", "beta", "how"), [("f4", 0.75, "forward"), ("f4", 0.5, "stored"), ("f8", 0.75, "stored")])
def test_only_what_the_page_rounds_alike_has_a_recipe(dtype, beta, how):
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.LocalResponseNorm(3, beta=beta), nn.Flatten())
    data = explore(model.to(dtype={"f4": minidl.float32, "f8": minidl.float64}[dtype]), np.ones((1, 1, 4, 4)), 1).data
    assert data["values"][data["ops"][1]["output"]["values"]]["how"] == how
