"""What ails a training, found by looking at it."""
