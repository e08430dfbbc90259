"""Tests of kernels; a package, as no folder on the path may be named cuda: CuPy imports NVIDIA's package of that name."""
