"""What every update begins with: the gradient, turned round to climb, and weight decay."""

from minidl.device import Array, array_module


def direction(w: Array, g: Array, weight_decay: float, maximize: bool) -> Array:
    """g + weight_decay w, with -g to maximize, in a new array with w's memory order."""
    xp = array_module(w)
    d = xp.empty_like(w)
    if weight_decay != 0:  # 0 * w would turn an infinite w into NaN
        xp.multiply(w, weight_decay, out=d)
        add_or_subtract = xp.subtract if maximize else xp.add
        add_or_subtract(d, g, out=d)
    elif maximize:
        xp.negative(g, out=d)
    else:
        d[...] = g
    return d
