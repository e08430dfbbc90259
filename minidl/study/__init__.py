"""Look inside a step: what every layer computes, keeps, moves and costs."""

from minidl.study.ledger import Ledger, Peak
from minidl.study.summary import Summary, summary
from minidl.study.trace import OpRecord, Trace

__all__ = ["Ledger", "OpRecord", "Peak", "Summary", "Trace", "summary"]
