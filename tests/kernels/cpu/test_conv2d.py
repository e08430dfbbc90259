"""How convolutions are cut in pieces and shared by threads. tests/kernels/test_replacements.py compares their results."""

import threading

import numpy as np
import pytest

import minidl
from minidl.kernels.cpu import conv2d as kernel
from minidl.kernels.cpu.conv2d import pieces
from minidl.kernels.cpu.im2col import Im2col, pixels
from minidl.kernels.cpu.winograd import Winograd
from minidl.parallel import shares

FLOAT32 = np.dtype(np.float32)


@pytest.mark.parametrize("rows, unit", [(13, 1), (13, 4), (16, 4), (1, 4), (55, 1)])
@pytest.mark.parametrize("images", [0, 1, 2, 7])
@pytest.mark.parametrize("at_once", [1, 3, 4, 16, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_pieces_cover_every_row_once(rows, unit, images, at_once, threads):
    each = -(-rows // unit)
    seen = np.zeros((images, rows), int)
    for i in range(threads):
        first, stop = images * each * i // threads, images * each * (i + 1) // threads
        for part in pieces(first, stop, rows, unit, at_once):
            number = part.images.stop - part.images.start
            assert part.rows.start % unit == 0 and number > 0
            if number > 1:
                assert part.rows == slice(0, rows)
            assert number * -(-(part.rows.stop - part.rows.start) // unit) <= max(at_once, 1)
            seen[part.images, part.rows] += 1
    assert (seen == 1).all()


def test_a_large_image_goes_a_few_rows_at_a_time():
    """VGG's second layer: the patches of one image would fill 115 MB."""
    out = (224, 224)
    assert 1 <= Im2col((64, 3, 3, 64), (1, 1), (1, 1), FLOAT32).units_at_once(out) <= 20
    tiles = Winograd((64, 3, 3, 64), (1, 1), FLOAT32)
    assert 1 <= tiles.units_at_once(out) * tiles.unit <= 40


@pytest.fixture
def three_threads():
    before = minidl.get_num_threads()
    minidl.set_num_threads(3)
    yield
    minidl.set_num_threads(before)


def test_pixels_are_a_view_or_an_error():
    y = np.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    for part in (y, y[1:2, 1:], y[..., 2:5]):
        view = pixels(part)
        assert view.shape == (part[..., 0].size, part.shape[3]) and np.shares_memory(view, part)
        assert (view == part.reshape(view.shape)).all()
    assert pixels(y[:0]).shape == (0, 6)
    for part in (y[:, 1:], y[:, :, ::-1], y.transpose(0, 2, 1, 3)):
        with pytest.raises(ValueError, match=r"im2col: pixels of shape \(2, .* are not evenly spaced"):
            pixels(part)


@pytest.mark.parametrize("method", [Im2col, Winograd])
def test_one_image_has_work_for_every_thread(method, three_threads, monkeypatch, rng):
    """Forward and both gradients of a single image are computed by three threads."""
    monkeypatch.setattr(kernel, "pays", lambda *given: method is Winograd)
    users = []
    for name in ("forward", "add_gradient"):
        plain = getattr(method, name)

        def noting(self, *given, name=name, plain=plain):
            users.append((name, threading.get_ident()))
            everybody.wait(10)  # or one thread might take two shares
            return plain(self, *given)

        monkeypatch.setattr(method, name, noting)
    monkeypatch.setattr(kernel, "grain", lambda cost: 1)
    x = rng.standard_normal((1, 24, 24, 32), np.float32)
    w = rng.standard_normal((32, 3, 3, 32), np.float32)
    settings = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    everybody = threading.Barrier(3)
    y = kernel.conv2d_forward(x, w, None, *settings)
    kernel.conv2d_backward(y, x, w, *settings, (True, True, False))
    assert len({thread for name, thread in users if name == "forward"}) == 3
    assert [name for name, _ in users].count("forward") == 6 and [name for name, _ in users].count("add_gradient") == 3


def test_a_small_convolution_stays_on_one_thread(three_threads, monkeypatch, rng):
    asked = []
    monkeypatch.setattr(kernel, "run", lambda work, n, at_least: asked.append(shares(n, at_least)) or [work(0, n)])
    x, w = rng.standard_normal((2, 6, 6, 3)), rng.standard_normal((4, 3, 3, 3))
    kernel.conv2d_forward(x, w, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    assert [len(parts) for parts in asked] == [1]
