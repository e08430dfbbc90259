"""Classic mistakes in a backward pass, and which check finds each."""
