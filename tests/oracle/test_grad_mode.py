"""The switch of recording is PyTorch's: the same lines run in both and leave the same trace."""

import numpy as np
import pytest

import minidl

torch = pytest.importorskip("torch")


def leaf(m):
    return m.Tensor(np.ones(2), requires_grad=True) if m is minidl else m.ones(2, requires_grad=True)


def modes(m):
    return {"no_grad": m.no_grad, "enable_grad": m.enable_grad, "inference_mode": m.inference_mode}


def blocks(m):
    seen = []
    w = leaf(m)
    for outer in modes(m).values():
        for inner in modes(m).values():
            with outer():
                with inner():
                    seen.append((w * 2).requires_grad)
                seen.append((w * 2).requires_grad)
    return seen


def decorators_with_and_without_parentheses(m):
    seen = []
    w = leaf(m)
    for outer in modes(m).values():
        with outer():
            for mode in modes(m).values():
                for decorator in (mode, mode()):

                    @decorator
                    def double(x, *, n):
                        """Doc."""
                        return (x * n).requires_grad

                    seen += [double(w, n=2), (w * 2).requires_grad, double.__name__, double.__doc__]
    return seen


def set_at_once(m):
    w, seen = leaf(m), []
    m.set_grad_enabled(False)
    seen.append((w * 2).requires_grad)
    m.set_grad_enabled(mode=True)
    seen.append((w * 2).requires_grad)
    with m.set_grad_enabled(False):
        seen.append((w * 2).requires_grad)
        with m.set_grad_enabled(True):
            seen.append((w * 2).requires_grad)
        seen.append((w * 2).requires_grad)
    return [*seen, (w * 2).requires_grad]


def set_as_a_decorator(m):
    @m.set_grad_enabled(False)
    def records():
        return (leaf(m) * 2).requires_grad

    return [records(), (leaf(m) * 2).requires_grad, records()]


def inference_mode_off(m):
    w, seen = leaf(m), []
    with m.inference_mode(False):
        seen += [(w * 2).requires_grad, m.is_inference_mode_enabled()]
    with m.no_grad(), m.inference_mode(mode=False):
        seen += [(w * 2).requires_grad]
    with m.inference_mode():
        seen += [m.is_inference_mode_enabled()]
        with m.inference_mode(False):
            seen += [(w * 2).requires_grad, m.is_inference_mode_enabled()]
        with m.set_grad_enabled(True):
            seen += [(w * 2).requires_grad]
    return [*seen, m.is_grad_enabled(), m.is_inference_mode_enabled()]


def talking(m, decorator, seen):
    """A generator function that is sent to and thrown into, and one that delegates to it."""

    def records():
        return (leaf(m) * 2).requires_grad

    @decorator
    def talk(first):
        seen.append(("begins", records()))
        try:
            got = yield first
            seen.append(("got", got, records()))
            try:
                yield got
            except KeyError:
                seen.append(("caught", records()))
            with m.enable_grad():
                yield records()
        finally:
            seen.append(("ends", records()))
        return "result"

    def delegate():
        seen.append((yield from talk("a")))

    return records, talk, delegate


def generators(m):
    """Between two values the caller's mode holds; what is sent and thrown in arrives, what is returned comes out."""
    seen = []
    for mode in modes(m).values():
        records, talk, delegate = talking(m, mode(), seen)
        for caller in (m.no_grad, m.enable_grad):
            with caller():
                generator = talk(10)
                seen += [next(generator), records(), generator.send(5), records(), generator.throw(KeyError()), records()]
                generator.close()
                seen += [records(), list(delegate()), records()]
    return seen


def a_generator_that_raises(m):
    @m.no_grad()
    def numbers():
        yield 1
        raise KeyError("x")

    with pytest.raises(KeyError):
        list(numbers())
    return [m.is_grad_enabled()]


PROGRAMS = [
    blocks,
    decorators_with_and_without_parentheses,
    set_at_once,
    set_as_a_decorator,
    inference_mode_off,
    generators,
    a_generator_that_raises,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_program_records_the_same(program):
    mine, theirs = program(minidl), program(torch)
    assert mine == theirs and len(mine) > 0


def test_what_is_refused():
    for m in (minidl, torch):
        with pytest.raises(TypeError):
            m.set_grad_enabled(1)
    with pytest.raises(TypeError, match="decorate each method of a class"):
        minidl.no_grad(dict)
    with pytest.raises(TypeError, match="a function can be decorated, got 3"):
        minidl.inference_mode(3)
