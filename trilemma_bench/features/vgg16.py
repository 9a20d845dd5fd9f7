"""VGG16 features (Simonyan and Zisserman 2015, arXiv:1409.1556), in which precision and recall were proposed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma_bench.features.network import IMAGENET_MEAN, IMAGENET_STD, ImageNetwork
from trilemma_bench.features.resize import normalised, tf1_bilinear

SIDE = 224
AFTER_FC2 = 5  # layers of torchvision's classifier: fc1, ReLU, dropout, fc2, ReLU


class VGG16(ImageNetwork):
    """The 4096 of fc2 after ReLU, of uint8 RGB images of any size, by torchvision's weights and TF1's resize to 224.

    These are torch-fidelity's defaults for precision and recall. The VGG16 of Kynkäänniemi et al. 2019
    (arXiv:1904.06991) and StyleGAN2-ADA is another conversion of other weights: its numbers are close, not equal.
    """

    name = "vgg16"
    weights_name = "vgg16"
    dim = 4096
    resize = "tf1-bilinear-224"

    def build(self, state: dict[str, Tensor]) -> None:
        from torchvision.models import vgg16

        with torch.device("meta"):
            network = vgg16(init_weights=False)
        network.load_state_dict(state, assign=True)
        network.classifier = network.classifier[:AFTER_FC2]
        network = network.to(self.device).eval().requires_grad_(False)
        network.features.to(memory_format=torch.channels_last)
        self.network = network

    def forward(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        resized = tf1_bilinear(normalised(images, IMAGENET_MEAN, IMAGENET_STD), SIDE)
        return {"features": self.network(resized)}
