"""Grids: one app, several ways to run it."""
