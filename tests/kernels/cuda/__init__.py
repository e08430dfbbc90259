"""Tests of the CUDA kernels; a package, as tests of the same names are in tests/ops."""
