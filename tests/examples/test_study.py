"""What minidl.study says of AlexNet: the figures of the paper's network, all of which a test elsewhere counts another way."""

import pytest
from model import AlexNet

from minidl.study import summary

# layer: output of each tower, weight of each tower, parameters, neurons, multiply-adds; both towers together
LAYERS = {
    "conv1": ((48, 55, 55), "48 x 3 x 11 x 11", 34_944, 290_400, 105_415_200),
    "norm1": ((48, 55, 55), "", 0, 0, 0),
    "pool1": ((48, 27, 27), "", 0, 0, 0),
    "conv2": ((128, 27, 27), "128 x 48 x 5 x 5", 307_456, 186_624, 223_948_800),
    "norm2": ((128, 27, 27), "", 0, 0, 0),
    "pool2": ((128, 13, 13), "", 0, 0, 0),
    "conv3": ((192, 13, 13), "192 x 256 x 3 x 3", 885_120, 64_896, 149_520_384),
    "conv4": ((192, 13, 13), "192 x 192 x 3 x 3", 663_936, 64_896, 112_140_288),
    "conv5": ((128, 13, 13), "128 x 192 x 3 x 3", 442_624, 43_264, 74_760_192),
    "pool5": ((128, 6, 6), "", 0, 0, 0),
    "fc6": ((2048,), "2048 x 9216", 37_752_832, 4_096, 37_748_736),
    "relu6": ((2048,), "", 0, 0, 0),
    "drop6": ((2048,), "", 0, 0, 0),
    "fc7": ((2048,), "2048 x 4096", 16_781_312, 4_096, 16_777_216),
    "relu7": ((2048,), "", 0, 0, 0),
    "drop7": ((2048,), "", 0, 0, 0),
    "fc8": ((1000,), "1000 x 4096", 4_097_000, 1_000, 4_096_000),
}
CROSSING = {"conv3": 173_056, "fc6": 36_864, "fc7": 16_384, "fc8": 8_192}  # bytes before these layers, each way


@pytest.fixture(scope="module")
def result():
    return summary(AlexNet(), (1, 3, 224, 224))


def test_every_layer(result):
    layers = [row for row in result.rows if not row.name.startswith("(")]
    assert [row.name for row in layers] == list(LAYERS)
    for row in layers:
        output, kernel, parameters, neurons, macs = LAYERS[row.name]
        towers = 1 if row.name == "fc8" else 2
        assert row.outputs == [output] * towers and row.kernel == kernel
        assert (row.parameters, row.neurons, row.macs_forward) == (parameters, neurons, macs)
        assert row.macs_backward == (macs if row.name == "conv1" else 2 * macs)  # no gradient of the images
        assert row.devices == ["cpu:0", "cpu:1"][:towers]


def test_what_crosses_between_the_towers(result):
    names = [row.name for row in result.rows]
    for i, row in enumerate(result.rows):
        expected = CROSSING.get(names[i + 1], 0) if i + 1 < len(names) else 0
        assert (row.crosses_forward, row.crosses_backward) == (expected, expected)
    assert result.batch_copied == 602_112  # tower 1's copy of the image


def test_totals(result):
    totals = result.totals
    assert totals["parameters"] == 60_965_224
    assert totals["neurons"] == 659_272
    assert totals["macs_forward"] == 724_406_816
    assert totals["macs_forward"] + totals["macs_backward"] == 2_067_805_248
    assert totals["crosses_forward"] == totals["crosses_backward"] == 234_496


def test_bytes_of_the_largest_layers(result):
    rows = {row.name: row for row in result.rows}
    assert rows["conv1"].activation == 290_400 * 4
    assert rows["conv1"].saved == 290_400 * 4 + 2 * 3 * 227 * 227 * 4  # its output for the ReLU, each tower's padded images
    assert rows["pool1"].saved == 69_984  # a byte for each winner
    assert rows["drop6"].saved == 4_096  # a byte for each mask
