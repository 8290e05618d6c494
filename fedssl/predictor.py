"""Deprecated names of `fedssl.predict`, for one version."""

from __future__ import annotations

import warnings

from fedssl.predict.classifier import Predictor, read_samples, write_predictions
from fedssl.predict.images import read_images
from fedssl.predict.load import load
from fedssl.predict.model_file import Meta

__all__ = ["Meta", "Predictor", "load", "read_images", "read_samples", "write_predictions"]

warnings.warn("fedssl.predictor is now fedssl.predict.load", DeprecationWarning, stacklevel=2)
