"""What a claim is: what the paper says, the runs that test it, and what is compared."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from settings import Settings


@dataclass(frozen=True)
class Comparison:
    """`better` against `worse`: the claim is that the first has the smaller `measure`.

    better, worse : names of arms
    measure       : a name in measures.py
    words         : what the numbers are, for the page
    ratio         : compare by worse / better, not by worse - better
    than          : the measure of `worse`, if it is another
    """

    better: str
    worse: str
    measure: str
    words: str
    ratio: bool = False
    than: str | None = None


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, or of a write-up, and what tests it.

    title    : a heading
    says     : what the paper says, in our words
    section  : where
    paper    : its figure, with its unit
    differs  : what is otherwise here: data, net, time
    arms     : name -> settings of its runs
    compared : what is compared; all of it must hold for the claim to be shown
    seeds    : how many runs of each arm are wanted, if the command line does not say
    place    : in the queue; smaller comes first
    """

    title: str
    says: str
    section: str
    paper: str
    differs: str
    arms: Mapping[str, Settings]
    compared: tuple[Comparison, ...] = ()
    seeds: int = 5
    place: int = field(default=50, kw_only=True)


def claims() -> dict[str, Claim]:
    """Every claim by the name of its file in experiments/, in the order of the queue."""
    import experiments

    names = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    found = {name: importlib.import_module(f"experiments.{name}") for name in names}
    claims = {name: module.CLAIM for name, module in found.items() if hasattr(module, "CLAIM")}
    return dict(sorted(claims.items(), key=lambda item: (item[1].place, item[0])))
