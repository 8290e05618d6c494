"""Geometry of a detector: anchors, their matching with true boxes, and the choice among what it finds."""
