"""The networks; apart from their specs, so that listing models does not import torch."""
