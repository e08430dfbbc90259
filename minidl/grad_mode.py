"""Is a graph recorded? One switch for each thread, and what turns it: no_grad, enable_grad, set_grad_enabled, inference_mode.

All four are for a block (`with no_grad():`) and for a function (`@no_grad()`, or `@no_grad` alone). A function that yields is
switched while it runs, not while it waits between two values: then its caller has the switch.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast, overload

F = TypeVar("F", bound=Callable[..., Any])


class _State(threading.local):
    enabled = True
    inference = False


_state = _State()


def is_grad_enabled() -> bool:
    """Does this thread record a graph?"""
    return _state.enabled and not _state.inference


def is_inference_mode_enabled() -> bool:
    """Is this thread inside inference_mode?"""
    return _state.inference


class GradMode:
    """The switch turned, for a block or a function. One object may be entered again inside itself."""

    def __init__(self, enabled: bool, inference: bool | None = None) -> None:
        self._enabled, self._inference = enabled, inference
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((_state.enabled, _state.inference))
        _state.enabled = self._enabled
        if self._inference is not None:
            _state.inference = self._inference

    def __exit__(self, *exc: object) -> None:
        _state.enabled, _state.inference = self._before.pop()

    def __call__(self, function: F) -> F:
        """The function, inside such a block whenever it runs. TypeError for a class, whose methods would be left out."""
        if inspect.isclass(function) or not callable(function):
            raise TypeError(f"GradMode: a function can be decorated, got {function!r}; decorate each method of a class")
        if inspect.isgeneratorfunction(function):
            return cast(F, self._while_it_runs(function))

        @functools.wraps(function)
        def decorated(*args: Any, **settings: Any) -> Any:
            with self._fresh():
                return function(*args, **settings)

        return cast(F, decorated)

    def _fresh(self) -> "GradMode":
        """One more of the kind: two threads may be in one function."""
        return GradMode(self._enabled, self._inference)

    def _while_it_runs(self, function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
        """A generator function whose body has the switch turned; between two values it is turned back."""

        @functools.wraps(function)
        def decorated(*args: Any, **settings: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **settings)
            resume: Callable[[], Any] = functools.partial(next, generator)
            while True:
                try:
                    with self._fresh():
                        value = resume()
                except StopIteration as end:
                    return end.value
                try:
                    resume = functools.partial(generator.send, (yield value))
                except GeneratorExit:
                    with self._fresh():
                        generator.close()
                    raise
                except BaseException as error:
                    resume = functools.partial(generator.throw, error)

        return decorated


class _SetGradEnabled(GradMode):
    """set_grad_enabled: the switch is turned at once, and turned back at the end of the block if there is one."""

    def __init__(self, enabled: bool) -> None:
        super().__init__(enabled)
        self._at_first = _state.enabled
        _state.enabled = enabled

    def __enter__(self) -> None:
        self._before.append((self._at_first, _state.inference))
        _state.enabled = self._enabled

    def __call__(self, function: F) -> F:
        _state.enabled = self._at_first
        return super().__call__(function)


@overload
def no_grad(function: None = None) -> GradMode: ...
@overload
def no_grad(function: F) -> F: ...
def no_grad(function: F | None = None) -> GradMode | F:
    """Inside the block, or the decorated function, no graph is recorded and nothing is saved for backward."""
    return GradMode(False) if function is None else GradMode(False)(function)


@overload
def enable_grad(function: None = None) -> GradMode: ...
@overload
def enable_grad(function: F) -> F: ...
def enable_grad(function: F | None = None) -> GradMode | F:
    """Inside the block, or the decorated function, a graph is recorded, also within no_grad (not within inference_mode)."""
    return GradMode(True) if function is None else GradMode(True)(function)


def set_grad_enabled(mode: bool) -> GradMode:
    """Record a graph from now on, or none; as a block, until its end. As a decorator it is as no_grad and enable_grad.

    TypeError unless mode is a bool.
    """
    if not isinstance(mode, bool):
        raise TypeError(f"set_grad_enabled: mode must be a bool, got {mode!r}")
    return _SetGradEnabled(mode)


@overload
def inference_mode(mode: bool = True) -> GradMode: ...
@overload
def inference_mode(mode: F) -> F: ...
def inference_mode(mode: bool | F = True) -> GradMode | F:
    """no_grad that no enable_grad inside it can undo. inference_mode(False) inside it records a graph.

    The tensors made inside are as any others: PyTorch would refuse them in a graph later.
    """
    if isinstance(mode, bool):
        return GradMode(not mode, mode)
    return GradMode(False, True)(mode)
