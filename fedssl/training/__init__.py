"""Training: the loops, steps and warm-ups that methods share."""
