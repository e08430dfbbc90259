"""One layer per file, forward and backward together."""
