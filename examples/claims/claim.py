"""What a claim is: what the paper says, the runs that test it, and what is compared."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field

import experiments
from settings import Settings


@dataclass(frozen=True)
class Comparison:
    """Two arms, seed by seed. The claim is that `better` has less of the measure.

    better, worse : names of arms
    measure       : a name in measures.py
    words         : what the numbers are, for the page
    ratio         : compare by worse / better, not by worse - better
    than          : the measure of `worse`, if it is another
    judged        : False: it is told, and the verdict does not depend on it
    """

    better: str
    worse: str
    measure: str
    words: str
    ratio: bool = False
    than: str | None = None
    judged: bool = True


@dataclass(frozen=True)
class Level:
    """One arm against a published figure. The claim is that its measure comes down to it.

    in_full : the run is as long as the published one
    """

    arm: str
    measure: str
    published: float
    words: str
    in_full: bool = True


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
    levels   : the same, of arms against published figures
    seeds    : how many runs of each arm are wanted, if the command line does not say
    curve    : what the plot shows: "test" or "train" error, "gradients", "after drop" or "colors"
    shown    : what the table of arms shows: names in measures.py
    remark   : what a reader of the numbers should know
    place    : in the queue and on the page; smaller comes first
    """

    title: str
    says: str
    section: str
    paper: str
    differs: str
    arms: Mapping[str, Settings]
    compared: tuple[Comparison, ...] = ()
    levels: tuple[Level, ...] = ()
    seeds: int = 5
    curve: str = "test"
    shown: tuple[str, ...] = ("test_error", "train_error")
    remark: str = ""
    place: int = field(default=50, kw_only=True)


def claims() -> dict[str, Claim]:
    """Every claim by the name of its file in experiments/, in the order of the queue."""
    names = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    found = {name: importlib.import_module(f"experiments.{name}") for name in names}
    claims = {name: module.CLAIM for name, module in found.items() if hasattr(module, "CLAIM")}
    return dict(sorted(claims.items(), key=lambda item: (item[1].place, item[0])))
