"""Look inside a step: what every layer computes, keeps, moves and costs."""

from minidl.study.explorer.explore import Page, explore
from minidl.study.gallery.mutations import mutation
from minidl.study.health.autopsy import Autopsy, AutopsyLog
from minidl.study.health.illnesses import Diagnosis, diagnose
from minidl.study.step.gradients import Badge, check_layers
from minidl.study.step.ledger import Ledger, Peak
from minidl.study.step.scaling import Scaling, scaling
from minidl.study.step.summary import Summary, summary
from minidl.study.step.trace import OpRecord, Trace

__all__ = [
    "Autopsy",
    "AutopsyLog",
    "Badge",
    "Diagnosis",
    "Ledger",
    "OpRecord",
    "Page",
    "Peak",
    "Scaling",
    "Summary",
    "Trace",
    "check_layers",
    "diagnose",
    "explore",
    "mutation",
    "scaling",
    "summary",
]
