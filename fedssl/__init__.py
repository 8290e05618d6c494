"""Federated semi-supervised learning: the science, on torch and numpy alone."""
