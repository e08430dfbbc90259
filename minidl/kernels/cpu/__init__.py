"""Blocked, threaded NumPy replacements of plain functions: only where a benchmark shows that the plain one loses."""
