"""Tests of the CPU replacements; a package, as tests of the same names are in tests/ops."""
