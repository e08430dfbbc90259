"""Files as a whole: parameters, epochs, devices, overrides; and every error by its text."""

import re

import numpy as np
import pytest

import minidl.cfg
import minidl.nn.functional as F
from minidl import Device, DeviceError, Tensor, count_traffic
from minidl.optim import SGD

FC = "[y]\ntype=fc\ninputs=data\noutputs=4\ninitW=0.1\n"
CONV = "[y]\ntype=conv\ninputs=data\nchannels=3\nfilters=4\nfilterSize=3\ninitW=0.1\n"
LOCAL = CONV.replace("conv", "local")
POOL = "[y]\ntype=pool\npool=max\ninputs=data\nchannels=3\nsizeX=3\nstride=2\n"
NORM = "[y]\ntype=rnorm\ninputs=data\nchannels=3\nsize=3\n"
HS = "[y]\ntype=hs\ninputs=data\nkeep=0.5\n"
OF_Y = "[y]\nepsW=0.1\nepsB=0.2\nmomW=0.9\nmomB=0.8\nwc=0.01\n"
OF_NORM = "[y]\nscale=0.1\npow=0.75\n"

# -------------------------------------------------------------------------------------------------------------- parameters


def test_groups_are_a_weight_or_a_bias_each(read):
    net = read(
        FC.replace("inputs=data", "inputs=data,data").replace("initW=0.1", "initW=1,1"),
        OF_Y.replace("W=", "W=0.5,").replace("wc=", "wc=0.3,"),
    )
    got = [(g["lr"], g["momentum"], g["weight_decay"], g["params"][0].shape) for g in net.groups()]
    assert got == [(0.5, 0.5, 0.3, (4, 3072)), (0.1, 0.9, 0.01, (4, 3072)), (0.2, 0.8, 0.0, (4,))]


def test_steps_are_those_of_2012(read, rng):
    """v <- mom v - eps (wc w + g); w <- w + v, each with its own numbers; a rate of 0 leaves a weight alone."""
    net = read(FC + "\n", OF_Y + "wball=0\nsuperEps=0.0\n", image_size=2)
    net.module.double()
    w, b = (p.detach().numpy().copy() for p in net.module.parameters())
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    optimizer = SGD(net.groups(), lr=0, rule="2012")
    labels = np.array([0, 2, 3])
    for _ in range(3):
        x = rng.normal(size=(3, 3, 2, 2))
        optimizer.zero_grad()
        net.loss(net.module(x), labels).backward()
        optimizer.step()
        z = x.reshape(3, 12) @ w.T + b
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        gz = (p - np.eye(4)[labels]) / 3
        vw = 0.9 * vw - 0.1 * (0.01 * w + gz.T @ x.reshape(3, 12))
        vb = 0.8 * vb - 0.2 * gz.sum(axis=0)
        w, b = w + vw, b + vb
    for got, wanted in zip(net.module.parameters(), (w, b), strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-12, atol=1e-14)


def test_the_cost_is_the_cross_entropy_times_its_coeff(read, tmp_path):
    net = read(FC, OF_Y, overrides={"cost": {"coeff": 0.5, "topk": 3}})
    scores, labels = Tensor(np.arange(8.0).reshape(2, 4)), np.array([1, 3])
    assert net.loss(scores, labels).item() == 0.5 * F.cross_entropy(scores, labels).item()
    assert net.coeff == 0.5 and net.topk == 3


def test_a_later_file_counts_from_its_epoch_on(tmp_path, read):
    layers = HS.replace("[y]", "[n]") + NORM.replace("[y]", "[r]").replace("data", "n") + FC.replace("inputs=data", "inputs=r")
    read(layers, "[n]\nenable=1\n[r]\nscale=1\npow=0.5\n" + OF_Y)
    first = (tmp_path / "params.cfg").read_text()
    (tmp_path / "later.cfg").write_text(
        first.replace("epsW=0.1", "epsW=0.01").replace("enable=1", "enable=0").replace("scale=1", "scale=2")
    )
    (tmp_path / "last.cfg").write_text(first.replace("epsW=0.1", "epsW=0").replace("coeff=1", "coeff=3"))
    files = [tmp_path / "params.cfg", f"2:{tmp_path / 'later.cfg'}", f"5:{tmp_path / 'last.cfg'}"]
    net = minidl.cfg.read(tmp_path / "layers.cfg", files)
    optimizer = SGD(net.groups(), lr=0, rule="2012")
    seen = []
    for epoch in range(6):
        net.set_epoch(epoch, optimizer)
        seen.append((optimizer.param_groups[0]["lr"], net.module.n.enable, net.module.r.scale, net.coeff))
    assert seen == [(0.1, True, 1, 1)] * 2 + [(0.01, False, 2, 1)] * 3 + [(0, True, 1, 3)]
    assert net.epochs == [0, 2, 5]


# ----------------------------------------------------------------------------------------------------------------- devices

TOWERS = """
[a]
type=conv
inputs=data
channels=3
filters=4
filterSize=3
initW=0.1
gpu=0
[b]
type=conv
inputs=data
channels=3
filters=4
filterSize=3
initW=0.1
gpu=1
[pa]
type=pool
pool=max
inputs=a
channels=4
sizeX=2
stride=2
[pb]
type=pool
pool=max
inputs=b
channels=4
sizeX=2
stride=2
neuron=relu
[ya]
type=fc
inputs=pb,pa
outputs=2
initW=0.1,0.1
gpu=0
[yb]
type=fc
inputs=pa,pb
outputs=2
initW=0.1,0.1
gpu=1
[z]
type=conv
inputs=pa,pb
channels=4,4
filters=1,1
filterSize=2,2
initW=0.1,0.1
gpu=1
[y]
type=fc
inputs=ya,yb,z
outputs=2
initW=0.1,0.1,0.1
gpu=0
"""
OF_TOWERS = "".join(
    OF_Y.replace("[y]", f"[{name}]").replace("W=", "W=" + "0.1," * more).replace("wc=", "wc=" + "0," * more)
    for name, more in (("a", 0), ("b", 0), ("ya", 1), ("yb", 1), ("z", 1), ("y", 2))
)


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
@pytest.mark.parametrize("first", ["cpu:0", "cuda:0"])
def test_towers_on_two_devices_are_those_on_one(read, rng, first):
    try:
        devices = str(Device(first)), str(Device(first.replace("0", "1")))
    except DeviceError as error:
        pytest.skip(str(error))
    x, labels = rng.normal(size=(3, 3, 6, 6)), np.array([0, 1, 1])
    results = []
    for names in (devices, first):
        minidl.manual_seed(0)
        net = read(TOWERS, OF_TOWERS, image_size=6, devices=names)
        net.module.double()
        with count_traffic() as traffic:
            net.loss(net.module(x), labels).backward()
        results.append([p.grad.numpy() for p in net.module.parameters()])
        if names == first:
            assert {str(p.device) for p in net.module.parameters()} == {first}
        else:
            on = {name: devices.index(str(layer.device)) for name, layer in net.module.named_children()}
            assert on == {"a": 0, "b": 1, "pa": 0, "pb": 1, "ya": 0, "yb": 1, "z": 1, "y": 0}
            assert all(str(p.device) == devices[on[name.split(".")[0]]] for name, p in net.module.named_parameters())
            # pa is 4 x 2 x 2 in float64, 3 images; it crosses once though yb and z read it. pb, yb and z cross the other way
            crossed = {pair: count for pair, count in traffic.items() if set(pair) == set(devices)}
            one_way, other_way = 3 * 8 * 16, 3 * 8 * (16 + 2 + 1)
            assert crossed == {devices: one_way + other_way, devices[::-1]: other_way + one_way}  # and the gradients back
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)


def test_images_may_be_on_each_device_already(read, rng):
    net = read(TOWERS, OF_TOWERS, image_size=6)
    x = rng.normal(size=(2, 3, 6, 6)).astype(np.float32)
    wanted = net.module(x).detach().numpy()
    with count_traffic() as traffic:
        there = [Tensor(x, device=name) for name in ("cpu:0", "cpu:1")]
        before = dict(traffic)
        assert np.array_equal(net.module(there).detach().numpy(), wanted)
    assert np.array_equal(net.module(Tensor(x)).detach().numpy(), wanted)
    assert before == {}


# --------------------------------------------------------------------------------------------------------------- overrides


def test_overrides_change_keys_of_layers_and_of_parameters(read):
    net = read(CONV, OF_Y, overrides={"y": {"filters": 5, "neuron": "tanh[1,1]", "epsW": 0.5, "wc": None}})
    assert net.module.y.shape == (5, 30, 30)
    assert net.groups()[0]["lr"] == 0.5 and net.groups()[0]["weight_decay"] == 0


def test_layers_that_are_taken_out_pass_their_input_on(read):
    text = NORM.replace("[y]", "[n]") + HS.replace("[y]", "[h]").replace("data", "n") + FC.replace("inputs=data", "inputs=h")
    params = OF_NORM.replace("[y]", "[n]") + "[h]\nenable=1\n" + OF_Y
    net = read(text, params, overrides={"n": None, "h": None})
    assert [name for name, _ in net.module.named_children()] == ["y"] and net.module.y.inputs == ["data"]


# ------------------------------------------------------------------------------------------------------------------ errors

KEYS = {  # layer file: a section, what is changed in it, what is said
    "no type": (FC.replace("type=fc\n", ""), "type: is missing"),
    "type": (
        FC.replace("type=fc", "type=nailbed"),
        "type: must be one of those that are read, data, conv, local, fc, pool, rnorm, cmrnorm, cnorm, neuron, hs, eltsum, "
        "eltmax, softmax, cost.logreg, got nailbed",
    ),
    "unknown key": (
        FC + "output=3\n",
        "output: is no key of this section, which has type, inputs, gpu, neuron, weightSource, initW, initB, outputs",
    ),
    "missing key": (FC.replace("outputs=4\n", ""), "outputs: is missing"),
    "no inputs": (FC.replace("inputs=data\n", ""), "inputs: is missing"),
    "not an integer": (FC.replace("outputs=4", "outputs=4.5"), "outputs: must be an integer of at least 1, got 4.5"),
    "too small": (CONV + "stride=0\n", "stride: must be an integer of at least 1, got 0"),
    "not a number": (FC.replace("initW=0.1", "initW=small"), "initW: must be a number of at least 0, got small"),
    "not finite": (FC + "initB=nan\n", "initB: must be a number, got nan"),
    "not a flag": (CONV + "sharedBiases=2\n", "sharedBiases: must be 0 or 1, or false or true, got 2"),
    "entries": (CONV + "padding=1,1\n", "padding: must have an entry for each of 1 inputs, got 2: 1,1"),
    "read before written": (FC.replace("inputs=data", "inputs=y"), "inputs: must be layers that stand above this one, got y"),
    "labels read": (
        FC.replace("inputs=data", "inputs=labels"),
        "inputs: must be images, maps or units; labels are for a cost alone, and a cost has no output, got labels",
    ),
    "number of inputs": (POOL.replace("inputs=data", "inputs=data,data"), "inputs: must be 1 for type pool, got 2: data, data"),
    "too few inputs": ("[y]\ntype=eltmax\ninputs=data\n", "inputs: must be at least 2 for type eltmax, got 1: data"),
    "gpu": (FC + "gpu=2\n", "gpu: must be below 2, the number of devices, got 2"),
    "channels": (
        CONV.replace("channels=3", "channels=4"),
        "channels: of data, 3x32x32, must be the number of its channels, got 4",
    ),
    "units": (
        "[u]\ntype=softmax\ninputs=data\n" + CONV.replace("inputs=data", "inputs=u").replace("channels=3", "channels=5"),
        "channels: of u, 3072, must make square maps of its units, got 5",
    ),
    "filter": (
        CONV.replace("Size=3", "Size=35") + "padding=1\n",
        "filterSize: must be at most 34 = 32 + 2 x 1, the padded map's side, got 35",
    ),
    "outputs of inputs": (
        CONV.replace("inputs=data", "inputs=data,data")
        .replace("channels=3", "channels=3,3")
        .replace("filters=4", "filters=4,4")
        .replace("Size=3", "Size=3,5")
        .replace("initW=0.1", "initW=1,1"),
        "inputs: must all give an output of the same shape, got 4x30x30 and 4x28x28",
    ),
    "groups": (CONV + "groups=2\n", "groups: must divide 3, the channels, got 2"),
    "filterChannels": (
        CONV + "groups=4\nrandSparse=1\nfilterChannels=2\n",
        "filterChannels: must divide 3 channels, and 4 groups of so many must deal them out evenly, got 2",
    ),
    "partialSum": (CONV + "partialSum=7\n", "partialSum: must divide 900 = 30 x 30, the places of the output, got 7"),
    "partialSum of local": (LOCAL + "partialSum=1\n", "partialSum: is no key of this section, which has type, inputs, gpu"),
    "source": (
        CONV + "weightSource=z[0]\n",
        "weightSource: must be this layer or one above it, as conv1 or conv1[0], got z[0]",
    ),
    "source's type": (
        FC.replace("[y]", "[u]") + CONV + "weightSource=u\n",
        "weightSource: must be a layer of type conv, got u",
    ),
    "source's index": (
        CONV.replace("[y]", "[u]") + CONV + "weightSource=u[1]\n",
        "weightSource: must be one of the 1 weights that u has here, got u[1]",
    ),
    "its own weight": (CONV + "weightSource=y\n", "weightSource: must be one of the 0 weights that y has here, got y"),
    "source's gpu": (
        CONV.replace("[y]", "[u]") + CONV + "gpu=1\nweightSource=u\n",
        "weightSource: must be on gpu 1 as this layer is, got u on gpu 0",
    ),
    "source's shape": (
        CONV.replace("[y]", "[u]") + CONV.replace("filters=4", "filters=5") + "weightSource=u\n",
        "weightSource: u must be 5x3x3x3, got 4x3x3x3",
    ),
    "pool": (POOL.replace("pool=max", "pool=rand"), "pool: must be max or avg, got rand"),
    "window": (POOL.replace("sizeX=3", "sizeX=33"), "sizeX: must be at most 32, the map's side, got 33"),
    "stride": (POOL.replace("stride=2", "stride=4"), "stride: must be at most sizeX 3, got 4"),
    "start": (POOL + "start=-3\n", "start: must be above -3 and below 32, or the first window has no pixel, got -3"),
    "outputsX": (POOL + "outputsX=17\n", "outputsX: must be at most 16, or the last window has no pixel, got 17"),
    "size": (NORM.replace("size=3", "size=33"), "size: must be at most 32 for data, 3x32x32, got 33"),
    "size across maps": (
        NORM.replace("rnorm", "cmrnorm").replace("size=3", "size=4"),
        "size: must be at most 3 for data, 3x32x32, got 4",
    ),
    "blocked": (NORM + "blocked=1\n", "blocked: must be 0, nothing else is read, got 1"),
    "keep": (HS.replace("0.5", "0"), "keep: must be above 0 and at most 1, got 0.0"),
    "shapes": (
        POOL.replace("[y]", "[u]") + "[y]\ntype=eltsum\ninputs=data,u\n",
        "inputs: must have the same shape, got 3x32x32 and 3x16x16",
    ),
    "coeffs": ("[y]\ntype=eltsum\ninputs=data,data\ncoeffs=1\n", "coeffs: must have an entry for each of 2 inputs, got 1: 1"),
    "no neuron": ("[y]\ntype=neuron\ninputs=data\n", "neuron: is missing"),
    "neuron": (
        FC + "neuron=elu\n",
        "neuron: must be one of ident, relu, tanh[a,b], logistic, abs, square, sqrt, softrelu, brelu[a], abstanh[a,b], "
        "linear[a,b], nrelu, drelu[a], got elu",
    ),
    "neuron's numbers": (FC + "neuron=tanh[1]\n", "neuron: must be tanh[a,b], got tanh[1]"),
    "neuron's number": (FC + "neuron=brelu[x]\n", "neuron: must be a number, got x"),
    "drelu": (FC + "neuron=drelu[0]\n", "neuron: must be drelu[a] with a other than 0, got drelu[0]"),
}


@pytest.mark.parametrize("text, said", KEYS.values(), ids=KEYS)
def test_a_layers_key(read, tmp_path, text, said):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'layers.cfg'} [y] {said}")):
        read(text, OF_Y)


REFUSED = ["nailbed", "blur", "resize", "rscale", "rgb2yuv", "rgb2lab", "treefc", "concat"]


@pytest.mark.parametrize("kind", REFUSED)
def test_types_that_are_not_read(read, kind):
    with pytest.raises(
        ValueError, match=rf"\[y\] type: must be one of those that are read, data, .*, cost.logreg, got {kind}$"
    ):
        read(f"[y]\ntype={kind}\ninputs=data\n")


PARAMETERS = {  # layer file, parameter file, what is said
    "missing section": (FC, "", "[y]: is missing, a layer of type fc takes parameters"),
    "unknown section": (FC, OF_Y + "[z]\nwc=0\n", "[z]: there is no such layer"),
    "section too many": (POOL, "[y]\nwc=0\n", "[y]: a layer of type pool takes no parameters"),
    "missing key": (FC, OF_Y.replace("epsB=0.2\n", ""), "[y] epsB: is missing"),
    "unknown key": (
        FC,
        OF_Y + "eps=1\n",
        "[y] eps: is no key of this section, which has epsW, momW, wc, epsB, momB, wball, superEps, superMom",
    ),
    "entries": (FC, OF_Y.replace("wc=0.01", "wc=0,0"), "[y] wc: must have an entry for each of 1 inputs, got 2: 0,0"),
    "rate": (FC, OF_Y.replace("epsW=0.1", "epsW=-1"), "[y] epsW: must be a number of at least 0, got -1"),
    "wball": (FC, OF_Y + "wball=0.1\n", "[y] wball: must be 0, nothing else is read, got 0.1"),
    "superEps": (FC, OF_Y + "superEps=1\n", "[y] superEps: must be 0, nothing else is read, got 1"),
    "superMom": (FC, OF_Y + "superMom=1\n", "[y] superMom: must be 0, nothing else is read, got 1"),
    "norm": (NORM, "[y]\nscale=1\n", "[y] pow: is missing"),
    "enable": (HS, "[y]\n", "[y] enable: is missing"),
}


@pytest.mark.parametrize("layers, params, said", PARAMETERS.values(), ids=PARAMETERS)
def test_the_parameter_file(read, tmp_path, layers, params, said):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'params.cfg'} {said}") + "$"):
        read(layers, params)


def test_topk_is_at_most_the_classes(read):
    with pytest.raises(ValueError, match=r"\[cost\] topk: must be at most 4, the classes, got 5"):
        read(FC, OF_Y, overrides={"cost": {"topk": 5}})


DATA = "[data]\ntype=data\ndataIdx=0\n[labels]\ntype=data\ndataIdx=1\n"
COST = "[{0}]\ntype=softmax\ninputs=y\n[{0}cost]\ntype=cost.logreg\ninputs=labels,{0}\n"
NOT_A_FILE = ": must be [name] lines with key=value lines below them: "

WHOLE = {  # a layer file, what is said of it
    "no cost": (DATA + FC, ": must have one layer of type cost.logreg, got 0"),
    "two costs": (DATA + FC + COST.format("p") + COST.format("q"), ": must have one layer of type cost.logreg, got 2"),
    "unread": (
        DATA + FC + NORM.replace("[y]", "[u]") + COST.format("p"),
        " [u]: must be read by another layer, as only a cost is the end",
    ),
    "labels": (
        DATA + FC + COST.format("p").replace("labels,", "data,"),
        " [pcost] inputs: must be the labels first, a data layer with dataIdx=1, got data",
    ),
    "softmax": (
        DATA + FC + COST.format("p").replace("labels,p", "labels,y"),
        " [pcost] inputs: must be a softmax layer second, got y",
    ),
    "a softmax's neuron": (
        DATA + FC + COST.format("p").replace("inputs=y", "inputs=y\nneuron=relu"),
        " [p] neuron: is no key of this section",
    ),
    "dataIdx": (DATA.replace("=1", "=2"), " [labels] dataIdx: must be 0, the images, or 1, their labels, got 2"),
    "name": (
        DATA + FC.replace("[y]", "[train]"),
        " [train]: a layer needs a name without a dot that no attribute of a module has",
    ),
    "dot": (DATA + FC.replace("[y]", "[a.b]"), " [a.b]: a layer needs a name without a dot that no attribute of a module has"),
    "section twice": (DATA + FC + FC, NOT_A_FILE + "While reading from"),
    "key twice": (DATA + FC + "initW=1\n", NOT_A_FILE + "While reading from"),
    "no value": (DATA + FC + "neuron\n", NOT_A_FILE + "Source contains parsing errors"),
    "no section": ("type=data\n", NOT_A_FILE + "File contains no section headers"),
    "not text": ("\udcff", ": must be a text in UTF-8: "),
}


@pytest.mark.parametrize("text, said", WHOLE.values(), ids=WHOLE)
def test_the_layer_file_as_a_whole(tmp_path, text, said):
    layers, params = tmp_path / "layers.cfg", tmp_path / "params.cfg"
    layers.write_text(text, errors="surrogateescape")
    params.write_text(OF_Y + "[pcost]\ncoeff=1\n")
    with pytest.raises(ValueError, match=re.escape(f"{layers}{said}")) as caught:
        minidl.cfg.read(layers, params)
    assert type(caught.value) is ValueError and "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        minidl.cfg.read(tmp_path / "absent", tmp_path / "absent")


@pytest.mark.parametrize("entry", ["later.cfg", "x:later.cfg", "0:later.cfg"])
def test_a_later_parameter_file_without_an_epoch(read, tmp_path, entry):
    read(FC, OF_Y)
    with pytest.raises(ValueError, match=f"^a later parameter file must be EPOCH:FILE, with an epoch above 0, got {entry}$"):
        minidl.cfg.read(tmp_path / "layers.cfg", [tmp_path / "params.cfg", entry])


def test_images_of_another_shape(read):
    net = read(FC, OF_Y)
    with pytest.raises(ValueError, match=re.escape("images must be ('N', 3, 32, 32), got (1, 3, 24, 24)")):
        net.module(np.zeros((1, 3, 24, 24), np.float32))


@pytest.mark.parametrize(
    "overrides, said",
    [
        ({"z": {"filters": 1}}, "overrides: must name layers of the file, data, labels, y, probs, cost, got z"),
        ({"cost": None}, "[cost] inputs: must be one layer if this layer is to be taken out, got labels,probs"),
        ({"data": None}, "[data] inputs: must be one layer if this layer is to be taken out, got none"),
    ],
)
def test_overrides_that_do_not_fit(read, overrides, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read(FC, OF_Y, overrides=overrides)
