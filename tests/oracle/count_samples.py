"""The counts of PyTorch's own tables of samples, as they stand in docs/pytorch.md.

make samples        runs every sample of ops and modules, and writes sample_counts.json and the page's text
"""

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import torch

from . import test_module_db, test_op_db, test_optim_db
from .samples import COUNTS_FILE, count

TABLES = {"op_db": test_op_db, "module_db": test_module_db, "optim_db": test_optim_db}
MISSING = {
    "op_db": test_op_db.MISSING,
    "module_db": [name for name in test_module_db.INFO if name not in test_module_db.OURS],
    "optim_db": [name for name in test_optim_db.INFO if name not in test_optim_db.OURS],
}
PAGE = Path(__file__).parents[2] / "docs/pytorch.md"
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


def counted(module: ModuleType) -> dict[str, tuple[int, int]]:
    """Of each op or module: right, refused. SystemExit for a wrong one."""
    names = sorted(module.CASES if module is test_op_db else module.OURS)
    verdicts = {name: list(module.verdicts(name)) for name in names}
    if wrong := [f"{name}: {v.why}" for name, found in verdicts.items() for v in found if v.result == "wrong"]:
        raise SystemExit("samples: these are wrong, so nothing was written:\n" + "\n".join(wrong))
    return {name: count(found) for name, found in verdicts.items()}


def main() -> None:
    """Count again, write, and say what is new."""
    torch.set_num_threads(1)
    for name in ("op_db", "module_db"):
        module = TABLES[name]
        old, module.COUNTS = module.COUNTS, counted(module)
        for key, pair in module.COUNTS.items():
            if old.get(key) != pair:
                print(f"{name}: {key}: {pair[0]} right, {pair[1]} refused")
    tables = (f' "{name}": {{\n' + ",\n".join(_lines(TABLES[name].COUNTS)) + "\n }" for name in ("op_db", "module_db"))
    COUNTS_FILE.write_text("{\n" + ",\n".join(tables) + "\n}\n")
    page = PAGE.read_text()
    begin, end = page.index(text().partition("\n")[0]), page.index("\n`make samples`")
    PAGE.write_text(page[:begin] + text() + page[end:])


def _lines(counts: dict[str, tuple[int, int]]) -> list[str]:
    """One for each op, so that a change is one line."""
    return [f"  {json.dumps(key)}: {json.dumps(pair)}" for key, pair in counts.items()]


if __name__ == "__main__":
    main()
