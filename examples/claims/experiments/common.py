"""What several claims share: the usual run, and changes of a net."""

from settings import Changes, Settings

WEIGHTED = ("conv1", "conv2", "conv3", "fc64", "fc10")  # the layers of 80sec that have weights
PAPER_DECAY = "0.0005"  # the paper's weight decay, of every layer (section 5)

BASE = Settings("80sec", epochs=10, drops=(8,))
FEW = 10_000  # training images, where a net is to overfit in a short time


def in_each(layers: tuple[str, ...] = WEIGHTED, **keys: str) -> Changes:
    """The same keys in several layers."""
    return {layer: dict(keys) for layer in layers}


def merged(*changes: Changes) -> Changes:
    """All of them; a later one's keys win."""
    whole: dict[str, dict[str, str] | None] = {}
    for some in changes:
        for layer, keys in some.items():
            whole[layer] = None if keys is None else {**(whole.get(layer) or {}), **keys}
    return whole
