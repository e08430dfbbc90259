"""Runs CUDA C on the CPU, so that kernels are tested where there is no GPU."""
