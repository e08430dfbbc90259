"""Optimizers. `lr_scheduler` has the schedules for their learning rates."""

from minidl.optim import lr_scheduler as lr_scheduler
from minidl.optim.adam import Adam
from minidl.optim.optimizer import Optimizer
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "lr_scheduler"]
