"""Look inside a step: what every layer computes, keeps, moves and costs."""

from minidl.study.autopsy import Autopsy, AutopsyLog
from minidl.study.explore import Page, explore
from minidl.study.gradients import Badge, check_layers
from minidl.study.illnesses import Diagnosis, diagnose
from minidl.study.ledger import Ledger, Peak
from minidl.study.mutations import mutation
from minidl.study.summary import Summary, summary
from minidl.study.trace import OpRecord, Trace

__all__ = [
    "Autopsy",
    "AutopsyLog",
    "Badge",
    "Diagnosis",
    "Ledger",
    "OpRecord",
    "Page",
    "Peak",
    "Summary",
    "Trace",
    "check_layers",
    "diagnose",
    "explore",
    "mutation",
    "summary",
]
