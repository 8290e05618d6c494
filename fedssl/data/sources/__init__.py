"""Data sources, one file each, and what several of them share."""
