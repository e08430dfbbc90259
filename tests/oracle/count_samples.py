"""The counts of PyTorch's own tables of samples, as they stand in docs/pytorch.md.

make samples        runs every sample, and prints the tests' COUNTS where they are others, and the page's text
"""

import sys
import textwrap
from collections.abc import Iterable
from types import ModuleType

import torch

from . import test_module_db, test_op_db, test_optim_db
from .samples import count

TABLES = {"op_db": test_op_db, "module_db": test_module_db, "optim_db": test_optim_db}
MISSING = {
    "op_db": test_op_db.MISSING,
    "module_db": [name for name in test_module_db.INFO if name not in test_module_db.OURS],
    "optim_db": [name for name in test_optim_db.INFO if name not in test_optim_db.OURS],
}
WHAT = {"op_db": "ops", "module_db": "modules", "optim_db": "optimizers"}


def text() -> str:
    """The page's text, from the tests' counts."""
    lines = ["| PyTorch's table | there | missing | samples right | refused | wrong |", "|---|---|---|---|---|---|"]
    for name, module in TABLES.items():
        right, refused = (sum(pair[i] for pair in module.COUNTS.values()) for i in (0, 1))
        there = len(there_of(name))
        lines.append(f"| `{name}` | {there} {WHAT[name]} | {len(MISSING[name])} | {right:,} | {refused:,} | 0 |")
    lines += ["", "What is refused, each with an error that says so:", ""]
    lines += [f"- {reason}" for reason in dict.fromkeys(test_op_db.REFUSED.values())]
    lines += ["- `capturable` and `differentiable` of optimizers: nothing is captured, and gradients have no gradients"]
    for name, missing in MISSING.items():
        lines += ["", f"Missing of `{name}`:", "", "```text", *listed(missing), "```"]
    return "\n".join(lines) + "\n"


def there_of(name: str) -> list[str]:
    """The ops, modules or optimizers that minidl has, each named once."""
    if name == "op_db":
        return sorted({case.info.name for label, case in test_op_db.CASES.items() if not label.endswith("in place")})
    return TABLES[name].OURS


def listed(names: Iterable[str]) -> list[str]:
    """Lines of names, those of each of PyTorch's modules together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        module, _, last = name.removeprefix("torch.").rpartition(".")
        groups.setdefault(module, []).append(last)
    width = {"width": 120, "subsequent_indent": "    ", "break_on_hyphens": False, "break_long_words": False}
    return [
        line
        for module, last in sorted(groups.items())
        for line in textwrap.wrap(f"{module + ': ' if module else ''}{' '.join(last)}", **width)
    ]


def changed(module: ModuleType) -> list[str]:
    """The lines of COUNTS that a new count would change; the counts are changed."""
    names = module.CASES if module is test_op_db else module.OURS
    new = {name: count(list(module.verdicts(name))) for name in names}
    lines = [f'    "{name}": {pair},' for name, pair in new.items() if module.COUNTS.get(name) != pair]
    module.COUNTS = new
    return lines


def main() -> None:
    """Count again, and print."""
    torch.set_num_threads(1)
    for module in (test_op_db, test_module_db):
        for line in changed(module):
            print(f"{module.__name__.rpartition('.')[2]}:{line}")
    sys.stdout.write(text())


if __name__ == "__main__":
    main()
