"""Look inside a step: what every layer computes, keeps, moves and costs."""

from minidl.study.explorer.explore import Page, explore
from minidl.study.explorer.show import Shown, Watch, show, watch
from minidl.study.gallery.mutations import mutation
from minidl.study.health.autopsy import Autopsy, AutopsyLog
from minidl.study.health.illnesses import Diagnosis, diagnose
from minidl.study.step.gradients import Badge, check_layers
from minidl.study.step.graph import Graph, graph
from minidl.study.step.ledger import Ledger, Peak
from minidl.study.step.scaling import Scaling, scaling
from minidl.study.step.summary import Summary, summary
from minidl.study.step.trace import OpRecord, Trace
from minidl.study.step.why import Answer, why

__all__ = [
    "Answer",
    "Autopsy",
    "AutopsyLog",
    "Badge",
    "Diagnosis",
    "Graph",
    "Ledger",
    "OpRecord",
    "Page",
    "Peak",
    "Scaling",
    "Shown",
    "Summary",
    "Trace",
    "Watch",
    "check_layers",
    "diagnose",
    "explore",
    "graph",
    "mutation",
    "scaling",
    "show",
    "summary",
    "watch",
    "why",
]
