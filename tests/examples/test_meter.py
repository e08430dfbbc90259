"""meter.py: what a run says while it goes."""

import meter
import pytest
from meter import Meter, clock


def test_clock():
    assert [clock(s) for s in (0, 59.4, 61, 3725)] == ["0:00", "0:59", "1:01", "1:02:05"]


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand."""
    time = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: time[0])
    return time


def test_means_and_speed_since_the_last_report(now):
    m = Meter(step=4, last_step=10)
    m.add(loss=2.0, right=1, images=4)
    m.add(loss=1.0, right=2, images=2)
    now[0] += 3
    assert m.now() == "loss 1.0000, top-1 50.0%, 2.0 images/s"
    assert m.take() == ({"loss": 10 / 6, "top1": 0.5}, {"images_per_second": 2.0, "seconds": 3.0})
    assert m.sums == {"loss": 0, "right": 0, "images": 0}
    assert m.seconds_left(step=7) == 3.0  # three steps took 3 s, three are left


def test_sums_of_a_checkpoint_count_and_its_images_have_no_speed(now):
    m = Meter(4, 10, {"loss": 10.0, "right": 1.0, "images": 4.0})
    m.add(loss=1.0, right=1, images=4)
    now[0] += 2
    means, speed = m.take()
    assert means == {"loss": 14 / 8, "top1": 0.25} and speed["images_per_second"] == 2.0


def test_time_that_is_left_out(now):
    m = Meter(0, 4)
    m.add(1.0, 0, 6)
    now[0] += 5
    m.leave_out(2.0)
    assert m.take()[1] == {"images_per_second": 2.0, "seconds": 3.0} and m.seconds_left(1) == 9.0
