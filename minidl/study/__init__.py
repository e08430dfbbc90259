"""Look inside a step: what every layer computes, keeps, moves and costs."""

from minidl.study.summary import Summary, summary
from minidl.study.trace import OpRecord, Trace

__all__ = ["OpRecord", "Summary", "Trace", "summary"]
