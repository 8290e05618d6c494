"""Plain functions on tensors, one idea a file."""
