"""LeNet-5."""

from __future__ import annotations

from torch import Tensor, nn

from fedssl.models.base import Outputs

_SIDE = 32


class LeNet(nn.Module):
    """The classic 6-16-120-84 layout, with as many parameters at every side.

    Smaller images are padded to LeNet-5's 32 x 32; of larger ones the last maps are averaged down
    to 5 x 5.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        padding = (max(0, (_SIDE + 1 - height) // 2), max(0, (_SIDE + 1 - width) // 2))
        maps = tuple(((side + 2 * more - 4) // 2 - 4) // 2 for side, more in zip((height, width), padding, strict=True))
        self.backbone = nn.Sequential(
            # The maximum comes before the ReLU: the same numbers, on a quarter of the values.
            nn.Conv2d(channels, 6, 5, padding=padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Identity() if maps == (5, 5) else nn.AdaptiveAvgPool2d(5),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.head = nn.Linear(84, num_classes)
        self.trunk_layers = 0

    def forward(self, x: Tensor) -> Outputs:
        """Give features (batch, 84) and logits."""
        features = self.backbone(x)
        return Outputs(features, self.head(features))
