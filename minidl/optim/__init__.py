"""Optimizers, and schedules for their learning rates."""

from minidl.optim.adam import Adam
from minidl.optim.optimizer import Optimizer
from minidl.optim.schedules import LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "LRScheduler", "MultiStepLR", "Optimizer", "ReduceLROnPlateau", "StepLR"]
