"""Changes in place: which memory was changed when, and by whom, so that backward notices.

Backward needs what forward saved as it was then. Every change in place that minidl makes (`x += y`, `x.zero_()`, `x[0] = 1`,
`optimizer.step()`, `load_state_dict`) is noted here: one clock ticks for all of them, and each piece of memory remembers its
last change. A node of the graph keeps the time of its forward, an int. Backward compares the memory of its saved arrays with
it, and only if the clock has ticked since. PyTorch keeps a count, the version, for each tensor's memory instead.

What is written to `x.data` by hand is not noted, as in PyTorch.
"""

import threading
import weakref
from typing import Any

from minidl.device import Array
from minidl.memory import owner

_lock = threading.Lock()
_now = 0
_last: dict[int, tuple[int, str, Any]] = {}  # id of the array that owns the memory -> time, who, a reference to that array


def now() -> int:
    """The time of the latest change; it stands still between changes."""
    return _now


def note(array: Array, by: str) -> None:
    """The memory of an array was changed in place, by what is named."""
    global _now
    root = owner(array)
    key = id(root)
    with _lock:
        _now += 1
        _last[key] = _now, by, weakref.ref(root, lambda _: _last.pop(key, None))


def changed_since(array: Array, time: int) -> str | None:
    """Who changed the memory of an array last, if that was after `time`."""
    if time == _now:
        return None
    when, by, _ = _last.get(id(owner(array)), (0, "", None))
    return by if when > time else None
