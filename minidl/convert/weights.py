"""minidl's own file of weights: safetensors, and in its metadata which AlexNet they fit."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checkpoint import write_whole
from minidl.data.errors import BadFileError

MEAN = "mean"  # beside the parameters: what is subtracted from the images, (H, W, 3), RGB
_ABOUT = "minidl.convert"  # the metadata's entry


def save_weights(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None
) -> None:
    """Write {name: array} as safetensors, whole or not at all. about : which variant and profile of AlexNet they fit."""
    from safetensors.numpy import save

    whole = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_whole(Path(path), save(whole, {_ABOUT: json.dumps(dict(about))} if about else None))


def load_weights(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """({name: array}, what save_weights was told about them), of any safetensors file.

    BadFileError: it is no such file. FileNotFoundError: it is not there.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(path)
    content = path.read_bytes()
    try:
        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        about = json.loads(metadata.get(_ABOUT, "{}"))
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BadFileError(path, len(content), f"must be in the safetensors format: {error!r}") from error
    return arrays, about if isinstance(about, dict) else {}
