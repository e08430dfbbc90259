"""Small networks for the tests of minidl/study: two towers, and what AlexNet has not."""

import minidl
import minidl.nn.functional as F
from minidl import nn

SHAPE = (1, 3, 10, 10)  # that Towers takes


class Tower(nn.Module):
    def __init__(self, device):
        super().__init__()
        self.conv1 = nn.ConvReLU2d(3, 4, 3, device=device)
        self.norm1 = nn.LocalResponseNorm(3, alpha=0.1, k=1.0)
        self.pool1 = nn.MaxPool2d(2)
        self.fc2 = nn.Linear(2 * 4 * 4 * 4, 6, device=device)
        self.drop2 = nn.Dropout(0.5)


class Towers(nn.Module):
    """Two towers that exchange their channels before fc2; fc3 is on the first device alone."""

    def __init__(self, devices=("cpu:0", "cpu:1")):
        super().__init__()
        self.tower0, self.tower1 = Tower(devices[0]), Tower(devices[1])
        self.fc3 = nn.Linear(12, 5, device=devices[0])

    def forward(self, x):
        towers = self.tower0, self.tower1
        devices = [tower.fc2.weight.device for tower in towers]
        x = [x.to(device) for device in devices]
        x = [tower.pool1(tower.norm1(tower.conv1(part))) for tower, part in zip(towers, x, strict=True)]
        x = [F.cat([part.to(device) for part in x], 1) for device in devices]
        x = [tower.drop2(tower.fc2(F.flatten(part, 1))) for tower, part in zip(towers, x, strict=True)]
        return self.fc3(F.cat([part.to(devices[0]) for part in x], 1))


class Odd(nn.Module):
    """What AlexNet has not: uneven strides and padding, dilation, groups, even windows, several rows, a number used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)  # so that the next one has a gradient to give
        self.conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
        self.norm = nn.LocalResponseNorm(4, alpha=0.3, k=1.5)
        self.pool = nn.MaxPool2d(3, 2, padding=1, dilation=2, ceil_mode=True)
        self.linear = nn.Linear(6, 3, bias=False)
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(self.first(x))))
        rows = self.linear(x.permute(0, 2, 3, 1).reshape(-1, 6))
        twice = self.drop(rows.relu())
        return (minidl.cat([twice, rows], 1) * 0.5).reshape(1, -1)
