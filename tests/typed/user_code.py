"""A program as users write it, with the type of every result. It is not run: test_types.py has mypy and pyright read it."""

from typing import Any, assert_type

import numpy as np

import minidl
import minidl.nn.functional as F
from minidl import Device, Function, Tensor, data, nn, optim, study

# -------------------------------------------------------------------------------------------------------------- tensors

x = minidl.randn(8, 3, 32, 32)
w = minidl.zeros(16, 3, 5, 5, dtype=np.float64, requires_grad=True)
assert_type(x, Tensor)
assert_type(minidl.rand(2, device="cpu:1"), Tensor)
assert_type(minidl.ones(2), Tensor)
assert_type(Tensor([1.0, 2.0]), Tensor)

assert_type(x + 1, Tensor)
assert_type(1 + x, Tensor)
assert_type(x - 0.5, Tensor)
assert_type(0.5 - x, Tensor)
assert_type(x * x, Tensor)
assert_type(2 * x, Tensor)
assert_type(x / 2, Tensor)
assert_type(1 / x, Tensor)
assert_type(x**2, Tensor)
assert_type(2**x, Tensor)
assert_type(x @ x, Tensor)
assert_type(x + np.zeros(32, np.float32), Tensor)
assert_type(-x, Tensor)
assert_type(abs(x), Tensor)
assert_type(x[0, ..., None, 1:], Tensor)
assert_type([row for row in x], list[Tensor])

assert_type(x.abs(), Tensor)
assert_type(x.exp().log().sqrt(), Tensor)
assert_type(x.matmul(x), Tensor)
assert_type(x.sum(), Tensor)
assert_type(x.mean((2, 3), keepdim=True), Tensor)
assert_type(x.max(), Tensor)
assert_type(x.max(1).values, Tensor)
assert_type(x.min(dim=0, keepdim=True)[1], Tensor)
assert_type(x.amax(1), Tensor)
assert_type(x.amin((0, 1)), Tensor)
assert_type(x.argmax(1), Tensor)
assert_type(x.relu().tanh().sigmoid(), Tensor)
assert_type(x.softmax(1), Tensor)
assert_type(x.log_softmax(dim=1), Tensor)
assert_type(x.reshape(8, -1), Tensor)
assert_type(x.view((8, -1)), Tensor)
assert_type(x.flatten(1), Tensor)
assert_type(x.squeeze().unsqueeze(0), Tensor)
assert_type(x.permute(0, 2, 3, 1).transpose(0, 1).T, Tensor)
assert_type(x.to("cpu:1").to(dtype=np.float64), Tensor)
assert_type(x.float().double(), Tensor)

assert_type(x.shape, tuple[int, ...])
assert_type(x.size(), tuple[int, ...])
assert_type(x.size(1), int)
assert_type(x.ndim, int)
assert_type(x.numel(), int)
assert_type(len(x), int)
assert_type(x.dtype, np.dtype[Any])
assert_type(x.device, Device)
assert_type(x.requires_grad, bool)
assert_type(x.is_leaf, bool)
assert_type(float(x), float)
assert_type(x.detach(), Tensor)
assert_type(x.numpy().shape, tuple[Any, ...])
assert_type(x.requires_grad_(), Tensor)
assert_type(x.register_hook(lambda gradient: gradient * 2).remove(), None)
assert_type(x.sum().backward(), None)
if x.grad is not None:
    assert_type(x.grad, Tensor)
    assert_type(x.grad.norm(), Tensor)
x.grad = None


class Square(Function):
    name = "square"

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        ctx.save(x)
        y: np.ndarray = x * x
        return y

    def backward(ctx, gy: np.ndarray) -> tuple[np.ndarray]:
        (x,) = ctx.saved
        return (2 * x * gy,)


assert_type(Square.apply(x), Tensor)

# ------------------------------------------------------------------------------------------------------ layers, functions

labels = np.arange(8)
assert_type(F.conv2d(x, w, stride=2, padding=(1, 2)), Tensor)
assert_type(F.conv2d_relu(x, w), Tensor)
assert_type(F.linear(x, w), Tensor)
assert_type(F.relu(x), Tensor)
assert_type(F.leaky_relu(x, 0.1), Tensor)
assert_type(F.max_pool2d(x, 3, 2), Tensor)
assert_type(F.max_pool2d(x, 3, 2, return_indices=True), tuple[Tensor, Tensor])
assert_type(F.avg_pool2d(x, 2), Tensor)
assert_type(F.local_response_norm(x, 5), Tensor)
assert_type(F.dropout(x, 0.5), Tensor)
assert_type(F.softmax(x, 1), Tensor)
assert_type(F.cat([x, x], 1), Tensor)
assert_type(F.pad(x, (1, 1)), Tensor)
assert_type(F.flatten(x, 1), Tensor)
assert_type(F.cross_entropy(x.flatten(1), labels), Tensor)

assert_type(nn.Linear(3, 4)(x), Tensor)
assert_type(nn.Linear(3, 4).weight, nn.Parameter)
assert_type(nn.Conv2d(3, 16, 5)(x), Tensor)
assert_type(nn.ConvReLU2d(3, 16, 5)(x), Tensor)
assert_type(nn.MaxPool2d(3, 2)(x), Tensor)
assert_type(nn.AvgPool2d(3)(x), Tensor)
assert_type(nn.LocalResponseNorm(5)(x), Tensor)
assert_type(nn.ReLU()(x), Tensor)
assert_type(nn.Dropout(0.5)(x), Tensor)
assert_type(nn.CrossEntropyLoss()(x.flatten(1), labels), Tensor)
assert_type(nn.Identity()(x), Tensor)

layers = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 28 * 28, 10))
assert_type(layers(x), Tensor)
assert_type(layers[0], nn.Module)
assert_type(layers[1:], nn.Sequential)
assert_type(nn.ModuleList([nn.ReLU()]).append(nn.Tanh()), nn.ModuleList)
assert_type(nn.init.normal_(w, std=0.01), Tensor)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5)
        self.fc = nn.Linear(16 * 28 * 28, 10)

    def forward(self, images: Tensor, *, scale: float = 1.0) -> Tensor:
        y = F.flatten(F.relu(self.conv(images)), 1)
        assert_type(y, Tensor)
        return self.fc(y) * scale


model = Net()
assert_type(model(x, scale=0.5), Tensor)
assert_type(model.train().eval().to("cpu:0"), Net)
assert_type(model.fc, nn.Linear)
assert_type(dict(model.named_parameters()), dict[str, nn.Parameter])
assert_type([child for child in model.children()], list[nn.Module])
assert_type(model.load_state_dict(model.state_dict()).missing_keys, list[str])

# ------------------------------------------------------------------------------------------------------------- training

optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
assert_type(optim.Adam(model.parameters()), optim.Adam)
schedule = optim.lr_scheduler.StepLR(optimizer, 3)
assert_type(optimizer.step(lambda: 2.5), float)
loader = data.ImageLoader(data.Patterns(64), batch_size=8, shuffle=True, transform=data.CenterCrop(32), num_workers=2)
for images, targets in loader:
    assert_type(images.dtype, np.dtype[Any])
    assert_type(targets.dtype, np.dtype[Any])
    loss = F.cross_entropy(model(Tensor(images)), targets)
    optimizer.zero_grad()
    assert_type(loss.backward(), None)
    assert_type(optimizer.step(), None)
    assert_type(schedule.step(), None)
    assert_type(schedule.get_last_lr(), list[float])
for towers, _ in data.ImageLoader(data.Patterns(64), 8, devices=["cpu:0", "cpu:1"]):
    assert_type(towers, list[Tensor])
assert_type(next(loader.epoch_batches(3))[0].ndim, int)
pairs = data.TensorDataset(Tensor([1.0]), Tensor([2.0])) + data.TensorDataset(Tensor([1.0]), Tensor([2.0]))
assert_type(pairs, data.ConcatDataset[tuple[Tensor, ...]])
assert_type(pairs[0], tuple[Tensor, ...])
assert_type(list(data.RandomSampler(pairs, generator=minidl.Generator(1))), list[int])
for batch in data.DataLoader(pairs, batch_size=2, shuffle=True, num_workers=1, collate_fn=data.default_collate):
    assert batch is not None


def use(batches: data.ImageLoader, layer: nn.MaxPool2d) -> None:
    """The names of classes are types by themselves."""
    for images, _ in batches:
        assert_type(layer(Tensor(images)), Tensor)


assert_type(data.CIFAR10("data")[0], tuple[Any, Any])
assert_type(data.datasets.MNIST("data", transform=data.transforms.ToTensor())[0], tuple[Any, Any])
assert_type(data.ImageFolder("data")[0], tuple[Any, Any])
assert_type(data.PackedImages("data")[0], tuple[np.ndarray, int])
assert_type(data.Patterns(8)[0], tuple[np.ndarray, int])

# -------------------------------------------------------------------------------------------------------------- looking


@minidl.no_grad()
def scores(images: Tensor) -> Tensor:
    return model(images)


assert_type(scores(x), Tensor)
assert_type(minidl.gradcheck(F.relu, x), bool)
with minidl.detect_anomaly(), minidl.no_grad(), minidl.plain_kernels(), minidl.count_traffic() as traffic:
    assert_type(traffic["cpu:0", "cpu:1"], int)
assert_type(minidl.get_num_threads(), int)
assert_type(study.summary(model, (1, 3, 32, 32)), study.Summary)
assert_type(study.check_layers(model, x), list[study.Badge])
with study.Ledger() as ledger:
    assert_type(ledger.peak, study.Peak)
autopsy = study.Autopsy(model)
with autopsy:
    assert_type(autopsy.after_step(F.cross_entropy(model(x), labels)), list[study.Diagnosis])
assert_type(study.explore(model, x).save("look").name, str)
