"""What type checkers must refuse, one mistake a line; tests/typed/test_types.py looks at every line that says so."""

import numpy as np

import minidl.nn.functional as F
from minidl import Tensor, nn, optim
from minidl.data import ImageLoader, Patterns

x = Tensor([1.0])
model = nn.Linear(3, 4)
x.no_such_method()  # wrong
x + "1"  # wrong
x.sum(dim="0")  # wrong
x.max(1).sum()  # wrong: two tensors
F.relu(np.zeros(3))  # wrong: no Tensor
F.max_pool2d(x, 2, return_indices=True).sum()  # wrong: two tensors
model(3)  # wrong
model(x, x)  # wrong: takes one tensor
nn.Linear("3", 4)  # wrong
optim.SGD(model.parameters(), learning_rate=0.1)  # wrong: lr
for images, _ in ImageLoader(Patterns(8), devices=["cpu:0"]):
    images.mean()  # wrong: a list of tensors
