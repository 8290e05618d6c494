"""Backbones trained without labels before the federation begins."""
