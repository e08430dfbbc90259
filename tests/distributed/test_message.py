"""Messages come back as they were, and what is none is refused."""

import math

import numpy as np
import pytest

from minidl.distributed.message import decode, encode


@pytest.mark.parametrize(
    "message",
    [
        *(None, True, 0, -(2**70), 0.1, math.inf, "", "ä\n", b"", b"\0\xff"),
        *([], (), {}, [1, (2, [b"x"]), {"a": (None,), 3: [True], (1, "b"): {}}], ["list"], ("array", "<f8", [2])),
    ],
    ids=repr,
)
def test_messages_come_back(message):
    found = decode(encode(message))
    assert found == message and type(found) is type(message)


def test_arrays_come_back_and_can_be_written_to():
    arrays = [
        np.arange(6.0).reshape(2, 3).T,
        np.zeros((0, 3), np.float32),
        np.array(True),
        np.float32(0.1),
        np.arange(3, dtype="i1"),
    ]
    found = decode(encode([{"x": arrays}, b"after"]))
    assert found[1] == b"after"
    for ours, theirs in zip(arrays, found[0]["x"], strict=True):
        np.testing.assert_array_equal(theirs, ours, strict=True)
        assert theirs.flags.writeable


def test_numbers_keep_every_bit():
    numbers = np.random.default_rng(0).standard_normal(100).tolist()
    assert decode(encode(numbers)) == numbers
    assert math.isnan(decode(encode(math.nan)))


@pytest.mark.parametrize("message", [object(), {1, 2}, [print], np.array([None])], ids=["object", "set", "function", "objects"])
def test_others_are_refused(message):
    with pytest.raises(TypeError, match="a message is made of None, bools, numbers, strings, bytes, arrays, lists, tuples and"):
        encode(message)
