"""Personalization hooks, one file each."""
