"""The options of a pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.config import option


@dataclass(frozen=True)
class Pretraining:
    """SimCLR (Chen et al. 2020) with the settings for small images; Adam with a cosine decay to 0."""

    epochs: int = option(60, "passes over the images", low=1)
    batch_size: int = option(256, "images a step, two views of each", low=2)
    lr: float = option(1e-3, "learning rate of the first step", above=0)
    weight_decay: float = option(1e-6, "L2 penalty of all trained tensors", low=0)
    loss: str = option(
        "simclr",
        "`simclr`: NT-Xent; `dcl`: without the positive pair in the denominator (Yeh et al. 2022)",
        choices=("simclr", "dcl"),
    )
    temperature: float = option(0.5, "temperature of the loss", above=0)
    area: float = option(0.2, "least share of an image that a view shows", above=0, high=1)
    jitter: float = option(
        0.4, "how far brightness, contrast and saturation of a view change, the hue by a quarter of it", low=0, high=1
    )
    images: str = option(
        "all",
        "`all` training images, the `federated_pool` that the split gives to clients, or its `unlabelled` part",
        choices=("all", "federated_pool", "unlabelled"),
    )
    score_every: int = option(10, "epochs between two k-NN scores; 0 = only at the end", low=0)
    threads: int = option(0, "threads that compute; 0 = one a core; weights are the same only for equal counts", low=0)
