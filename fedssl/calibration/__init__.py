"""Calibration hooks, one file each."""
