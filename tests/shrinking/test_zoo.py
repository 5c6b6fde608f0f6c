"""Models of real shape with random zeros: none of them computes anything else after it shrank.

Those whose trace takes long are in benchmarks/shrink_zoo.py, with all masks, and with models of transformers and timm.
"""

import pytest
import torch

import torchshrink as ts
from shrink_cases import MASKS, error, mask
from shrink_models import ZOO, example

# By model, how much of the parameters is left at most where every layer lost the first half of its rows: a rule that is
# lost pins what it let through.
TWICE = {
    "wide ResNet": 0.5, "VGG": 0.4, "network in network": 0.4, "super-resolution": 0.6, "autoencoder": 0.5,
    "DCGAN generator": 0.55, "PatchGAN discriminator": 0.45, "variational autoencoder": 0.55, "gMLP": 0.65,
    "text CNN": 0.7, "fastText": 0.9, "TCN": 0.7, "WaveNet": 0.7, "3-D convolutions": 0.45, "unrolled RNN": 1,
    "wide and deep": 0.5, "tabular ResNet": 0.4, "factorization machine": 0.6, "mixture of experts": 0.6,
    "siamese": 0.4, "PointNet": 0.6, "NeRF": 0.45, "highway": 0.45, "SIREN": 0.4, "maxout": 0.6, "MLP": 0.45,
}  # fmt: skip
ONCE = ("ResNeXt", "MobileNetV1", "AlexNet", "ConvMixer", "U-Net", "attention gate", "DeepLab", "Perceiver")
RUNS = [(name, "stages") for name in TWICE] + [
    (name, MASKS[place % len(MASKS)]) for place, name in enumerate((*TWICE, *ONCE))
]


@pytest.mark.parametrize(("name", "kind"), RUNS)
def test_zoo(name, kind):
    build, *sizes = ZOO[name]
    seed = list(ZOO).index(name)
    torch.manual_seed(seed)
    model = mask(build(), kind, seed)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    inputs = [(example(size),) for size in sizes]
    shrunk = ts.shrink(model, inputs[0])
    assert max(error(model, shrunk, inputs), shrunk.difference) <= 1e-12
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    if kind == "stages":
        assert shrunk.parameters[1] <= TWICE.get(name, 1) * shrunk.parameters[0]
