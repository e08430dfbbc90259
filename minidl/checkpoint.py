"""Checkpoints: folders that are either complete or not there, hold no pickles, and are verified when read.

    step-000400/
      model.safetensors        the parameters, by name
      optimizer.safetensors    the arrays of the optimizer's state, as "<position>.<name>"; absent if none was saved
      state.json               everything else, and the length and SHA-256 of the files above

*Complete or not there.* The files are written into a hidden sibling, `.step-000400.tmp-<process>`, and forced to the
disk; then the folder is renamed, which happens at once or not at all. A checkpoint that is replaced is first set aside
under the name `.step-000400.old`, and deleted when the new one is in its place. If the process is killed between these
two renames, reading `step-000400` finds the old one. One process at a time may write under one name. What a killed one
left is cleared by the next save under that name, or by `clear_leftovers` for a whole folder.

*No pickles.* Loading a pickle can run any code; safetensors and JSON hold only data, and other programs can read them.

*Verified.* A truncated file or a changed byte is a CheckpointError instead of a network that is slightly wrong.
`state.json` carries its own SHA-256, that of its text with `"sha256": ""`. It is JSON with Python's NaN and Infinity.

Arrays are stored in the logical order of their shape: (N, C, H, W) whatever the memory order was. What loads them
restores its own. Equal contents give equal bytes.
"""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "minidl checkpoint"
VERSION = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"

_DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64"),
)


class CheckpointError(RuntimeError):
    """What was found is not a whole, unaltered checkpoint of a known format."""


@dataclass
class Checkpoint:
    """What `load_checkpoint` returns. Arrays are new, C-contiguous NumPy arrays on the host.

    model_state     : {name: array}, as it was saved.
    optimizer_state : what `Optimizer.load_state_dict` takes, or None.
    state           : the keyword arguments of `save_checkpoint`; their tuples have become lists.
    """

    model_state: dict[str, np.ndarray]
    optimizer_state: dict[str, Any] | None
    state: dict[str, Any]


# --------------------------------------------------------------------------------------------------------------- saving


def save_checkpoint(
    path: str | os.PathLike[str],
    model_state: Mapping[str, np.ndarray],
    optimizer_state: Mapping[str, Any] | None = None,
    **state: Any,
) -> None:
    """Write the folder `path`, whole or not at all; a checkpoint that was there is kept until the new one is complete.

    model_state     : {name: NumPy array}.
    optimizer_state : what `Optimizer.state_dict` returned.
    state           : anything made of None, bool, int, float, str, lists and dicts with string keys: schedules, random
                      generators, the position in the data, `step` (the number that orders checkpoints), arguments.

    TypeError: something that can't be stored, named. CheckpointError: `path` is there and is no checkpoint. OSError from the
    disk, with its errno. After any of them what was there before is intact and nothing temporary is left.
    """
    path = Path(path)
    tensors = {MODEL: _checked_arrays("model_state", model_state)}
    numbers = None
    if optimizer_state is not None:
        arrays, numbers = _split_optimizer(optimizer_state)
        tensors[OPTIMIZER] = _checked_arrays("optimizer_state", arrays)
    _check_json("optimizer_state", numbers)
    _check_json("state", state)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    _check_replaceable(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.mkdir()
        _write_files(temporary, tensors, {"optimizer": numbers, "state": state})
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checked_arrays(what: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays in C order, which is what the format stores."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"save_checkpoint: {what}[{name!r}] must be a NumPy array, got {type(array).__name__}")
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"save_checkpoint: {what}[{name!r}] must be of {', '.join(_DTYPES)}, got {array.dtype}")
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _check_json(what: str, value: Any) -> None:
    """TypeError that names the first thing inside `value` that JSON would refuse or change."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"save_checkpoint: the keys of {what} must be strings, got {key!r}")
            _check_json(f"{what}[{key!r}]", inner)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            _check_json(f"{what}[{i}]", inner)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(
            f"save_checkpoint: {what} must be None, bool, int, float, str, a list or a dict, got {type(value).__name__}"
        )


def _split_optimizer(optimizer_state: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of an optimizer's state, named "<position>.<name>", and the rest, with positions as strings."""
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for position, entries in optimizer_state["state"].items():
        numbers[str(position)] = {name: v for name, v in entries.items() if not isinstance(v, np.ndarray)}
        arrays |= {f"{position}.{name}": v for name, v in entries.items() if isinstance(v, np.ndarray)}
    return arrays, {"state": numbers, "param_groups": optimizer_state["param_groups"]}


def _write_files(folder: Path, tensors: dict[str, dict[str, np.ndarray]], content: dict[str, Any]) -> None:
    """Write the arrays, then state.json about them, all forced to the disk."""
    files = {}
    for name, arrays in tensors.items():
        _write_tensors(folder / name, arrays)
        sync(folder / name)
        files[name] = {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    head = {"format": FORMAT, "version": VERSION, "versions": versions, "files": files}
    (folder / STATE).write_bytes(_render({**head, **content}))
    sync(folder / STATE)
    for name in tensors:  # save_file lets only the owner read; give them the permissions of any new file
        shutil.copymode(folder / STATE, folder / name)
    sync(folder)


def _write_tensors(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """safetensors reports the disk's errors as text; here they are OSErrors, so that a full disk can be told from others."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, file)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def _render(content: dict[str, Any]) -> bytes:
    """The text of state.json, with the SHA-256 of itself before that was filled in."""
    unsigned = json.dumps({**content, "sha256": ""}, indent=1).encode()
    return json.dumps({**content, "sha256": hashlib.sha256(unsigned).hexdigest()}, indent=1).encode()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's entries, is on the disk (Windows can't do the latter)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and wait until the disk has it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append_whole(path: Path, content: bytes) -> None:
    """Append to a file, which has all of it on the disk when this returns; or OSError and no part of it."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(content) < len(content):  # a disk that fills up takes the beginning
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


# ------------------------------------------------------------------------------------------------------------ replacing


def _set_aside(path: Path) -> Path:
    """Where a checkpoint waits while it is being replaced."""
    return path.with_name(f".{path.name}.old")


def _foreign_entries(folder: Path) -> list[str]:
    """What lies in the folder and is no part of a checkpoint."""
    return sorted({entry.name for entry in folder.iterdir()} - {MODEL, OPTIMIZER, STATE})


def _check_replaceable(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: must be a folder to be replaced by a checkpoint, got a file")
    foreign = _foreign_entries(path) if path.exists() else []
    if foreign:
        raise CheckpointError(
            f"{path}: a folder with 0 other files is replaced by a checkpoint, got {len(foreign)} others: {foreign}"
        )


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Undo what killed processes left in `folder`: temporaries go, a checkpoint that was set aside comes back.

    No process may be writing there meanwhile. A folder that is not there has none.
    """
    folder = Path(folder)
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        leftover = re.fullmatch(r"\.(.+)\.(tmp-\d+|old)", entry.name)
        if leftover and entry.is_dir():
            _clear_leftovers(entry.with_name(leftover[1]))


def _clear_leftovers(path: Path) -> None:
    """The same for one name."""
    for entry in path.parent.iterdir():
        if re.fullmatch(re.escape(f".{path.name}.tmp-") + r"\d+", entry.name):
            shutil.rmtree(entry)
    old = _set_aside(path)
    if old.exists() and path.exists():
        shutil.rmtree(old)
    elif old.exists():
        os.rename(old, path)


def _swap(temporary: Path, path: Path) -> None:
    """Put the complete new folder in the place of the old one; on an error put the old one back."""
    old = _set_aside(path)
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
        sync(path.parent)
    except BaseException:
        if not temporary.exists():
            os.rename(path, temporary)
        if old.exists():
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------------- loading


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and verify every byte of it.

    CheckpointError, which names the file, the rule and the numbers: no checkpoint, a missing or truncated file, altered
    bytes, an unknown format version, a state.json that is not JSON, a folder that was never completed, and files that are
    unaltered, but not what `save_checkpoint` writes.
    """
    folder = _folder_of(Path(path))
    content = _read_state(folder)
    tensors = {name: _read_tensors(folder / name, about["sha256"]) for name, about in content["files"].items()}
    optimizer_state = None
    if content["optimizer"] is not None:
        try:
            optimizer_state = _join_optimizer(tensors[OPTIMIZER], content["optimizer"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder}: {OPTIMIZER} must fit {STATE}, got {error!r}") from error
    return Checkpoint(tensors[MODEL], optimizer_state, content["state"])


def _folder_of(path: Path) -> Path:
    """The path, or what was set aside from it by a process that was killed while it replaced it."""
    return path if path.exists() or not _set_aside(path).exists() else _set_aside(path)


def _read_state(folder: Path) -> dict[str, Any]:
    """state.json, verified; the other files are there and have the right length."""
    file = folder / STATE
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise CheckpointError(f"{folder}: not a checkpoint: a checkpoint is a folder, got {found}")
    if not file.is_file():
        kind = "half-written" if (folder / MODEL).exists() else "not a checkpoint"
        there = sorted(entry.name for entry in folder.iterdir())
        raise CheckpointError(f"{folder}: {kind}: {STATE} must be there, got {there}")
    content = _parse_state(file)
    for name, about in content["files"].items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: must be there with {about['bytes']} bytes, got no such file")
        size = (folder / name).stat().st_size
        if size != about["bytes"]:
            raise CheckpointError(f"{folder / name}: must have {about['bytes']} bytes, got {size}")
    return content


def _parse_state(file: Path) -> dict[str, Any]:
    text = file.read_bytes()
    try:
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: must be JSON, got {len(text)} bytes that are not: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{file}: not a checkpoint: its format must be {FORMAT!r}, got {text[:60]!r}")
    if content.get("version") != VERSION:
        raise CheckpointError(f"{file}: its format version must be {VERSION}, got {content.get('version')!r}")
    stated = content.pop("sha256", None)
    if _render(content) != text:
        raise CheckpointError(f"{file}: altered: its {len(text)} bytes must have the SHA-256 that it states, got {stated!r}")
    _check_head(file, content)
    return content


def _check_head(file: Path, content: dict[str, Any]) -> None:
    """CheckpointError unless state.json, whose checksum anybody can compute, has the entries that `save_checkpoint` writes.

    The names of files are held to the two known ones: another could be a path out of the folder.
    """
    missing = [name for name in ("files", "optimizer", "state") if name not in content]
    if missing:
        raise CheckpointError(f"{file}: must have files, optimizer and state, got no {' and no '.join(missing)}")
    files, optimizer = content["files"], content["optimizer"]
    wanted = {MODEL} if optimizer is None else {MODEL, OPTIMIZER}
    if not isinstance(files, dict) or files.keys() != wanted:
        raise CheckpointError(f"{file}: its files must be {sorted(wanted)}, got {files!r}")
    for name, about in files.items():
        if not isinstance(about, dict) or about.keys() != {"bytes", "sha256"}:
            raise CheckpointError(f"{file}: of {name} it must state bytes and sha256, got {about!r}")
    for name, value in (("state", content["state"]), ("optimizer", optimizer)):
        if not isinstance(value, dict) and (name, value) != ("optimizer", None):
            raise CheckpointError(f"{file}: {name} must be an object, got {type(value).__name__}")


def _read_tensors(file: Path, sha256: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    found = _sha256(file)
    if found != sha256:
        raise CheckpointError(f"{file}: altered: its SHA-256 must be {sha256}, got {found}")
    try:
        return load_file(file)
    except (SafetensorError, KeyError, ValueError, AttributeError) as error:  # the last: an element type that NumPy lacks
        raise CheckpointError(f"{file}: must be in the safetensors format, got {error!r}") from error


def _join_optimizer(arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_split_optimizer`."""
    state = {int(position): dict(entries) for position, entries in numbers["state"].items()}
    for key, array in arrays.items():
        position, _, name = key.partition(".")
        state[int(position)][name] = array
    return {"state": state, "param_groups": numbers["param_groups"]}


# -------------------------------------------------------------------------------------------------------------- folders


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint in `folder` whose state has the largest `step`, or None.

    Only those count that have a whole state.json with an integer `step`, and files of the right length; checksums of
    the files are left to `load_checkpoint`. Temporaries and anything else in the folder are passed over.
    """
    found = _by_step(Path(folder))
    return found[-1] if found else None


def keep_last(folder: str | os.PathLike[str], k: int, beside: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
    """Delete all but the k checkpoints of the largest `step` in `folder`; returns the deleted ones, oldest first.

    beside : checkpoints that stay too, the best one for instance; those among the last k do not make room for others.

    Whatever `latest_checkpoint` would pass over stays, and so does a checkpoint with other files in it.
    ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"keep_last: k must be at least 1, got {k}")
    kept = {Path(path).absolute() for path in beside}
    old = [path for path in _by_step(Path(folder))[:-k] if path.absolute() not in kept]
    removed = [path for path in old if not _foreign_entries(_folder_of(path))]
    for path in removed:
        _clear_leftovers(path)
        doomed = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        os.rename(path, doomed)  # a deletion that is cut short leaves no half of a checkpoint
        shutil.rmtree(doomed)
    return removed


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints in the folder, by step and then by name."""
    steps = []
    for path in {_target(entry) for entry in folder.iterdir()} if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        try:
            step = _read_state(_folder_of(path))["state"].get("step")
        except CheckpointError:
            continue
        if isinstance(step, int):
            steps.append((step, path.name, path))
    return [path for _, _, path in sorted(steps)]


def _target(entry: Path) -> Path:
    """The checkpoint that an entry of the folder stands for: itself, or the one it was set aside from."""
    match = re.fullmatch(r"\.(.+)\.old", entry.name)
    return entry.with_name(match[1]) if match else entry
