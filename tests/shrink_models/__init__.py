"""Small models of the structures that people train, in pure torch, for the tests and benchmarks of shrinking."""

import torch
from torch import nn

from shrink_models.attention import GPT, GatedMLP, Llama, Mixer, Perceiver, Swin, Transformer, ViT, transformer_encoder
from shrink_models.images import (
    alexnet,
    densenet,
    efficientnet,
    googlenet,
    lenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    network_in_network,
    resnet18,
    resnet50,
    resnext,
    shufflenet,
    squeezenet,
    vgg,
    wide_resnet,
)
from shrink_models.pixels import (
    AttentionGate,
    Detector,
    Pyramid,
    UNet,
    convmixer,
    convnext,
    convolutional_autoencoder,
    discriminator,
    generator,
    repvgg,
    style_transfer,
    super_resolution,
)
from shrink_models.sequences import (
    TCN,
    FastText,
    Graph,
    LSTMTagger,
    NeRF,
    PointNet,
    TextCNN,
    UnrolledRNN,
    WaveNet,
    conv1d_net,
    conv3d_net,
)
from shrink_models.tables import (
    VAE,
    FactorizationMachine,
    Highway,
    Maxout,
    MixtureOfExperts,
    Siamese,
    TabularResNet,
    WideAndDeep,
    mlp,
    siren,
)


def image(size=8, rows=2, channels=3):
    return rows, channels, size, size


TOKENS = "tokens"
ZOO = {
    "ResNet-18": (resnet18, image(32), image(40, 3)),
    "ResNet-50": (resnet50, image(12), image(17, 3)),
    "ResNeXt": (resnext, image(), image(11, 3)),
    "wide ResNet": (wide_resnet, image(), image(11, 3)),
    "MobileNetV1": (mobilenet_v1, image(), image(13, 3)),
    "MobileNetV2": (mobilenet_v2, image(16), image(21, 3)),
    "MobileNetV3": (mobilenet_v3, image(12), image(17, 3)),
    "EfficientNet": (efficientnet, image(12), image(17, 3)),
    "DenseNet": (densenet, image(), image(12, 3)),
    "VGG": (vgg, image(), image(12, 3)),
    "AlexNet": (alexnet, image(16), image(20, 3)),
    "LeNet": (lenet, image(16), image(16, 3)),
    "network in network": (network_in_network, image(), image(11, 3)),
    "SqueezeNet": (squeezenet, image(16), image(20, 3)),
    "GoogLeNet": (googlenet, image(), image(11, 3)),
    "ShuffleNet": (shufflenet, image(), image(12, 3)),
    "ConvNeXt": (convnext, image(), image(12, 3)),
    "ConvMixer": (convmixer, image(), image(12, 3)),
    "RepVGG": (repvgg, image(), image(12, 3)),
    "YOLO-like detector": (Detector, image(16), image(24, 3)),
    "U-Net": (UNet, image(), image(12, 3)),
    "U-Net, bilinear": (lambda: UNet("bilinear", nn.InstanceNorm2d), image(), image(12, 3)),
    "attention gate": (AttentionGate, image(), image(12, 3)),
    "DeepLab": (Pyramid, image(), image(12, 3)),
    "super-resolution": (super_resolution, image(6), image(9, 3)),
    "autoencoder": (convolutional_autoencoder, image(), image(12, 3)),
    "DCGAN generator": (generator, (2, 10), (3, 10)),
    "PatchGAN discriminator": (discriminator, image(16), image(20, 3)),
    "style transfer": (style_transfer, image(), image(12, 3)),
    "variational autoencoder": (VAE, (2, 12), (3, 12)),
    "ViT": (ViT, image(), image(8, 3)),
    "ViT, heads open": (lambda: ViT("open"), image(), image(8, 3)),
    "ViT, softmax": (lambda: ViT("softmax"), image(), image(8, 3)),
    "Swin": (Swin, image(), image(8, 3)),
    "MLP-Mixer": (Mixer, image(), image(8, 3)),
    "gMLP": (GatedMLP, (2, 5, 6), (3, 5, 6)),
    "TransformerEncoder": (transformer_encoder, (2, 5, 6), (3, 7, 6)),
    "Transformer": (Transformer, (2, 5, 6), (3, 7, 6)),
    "Perceiver": (Perceiver, (2, 5, 6), (3, 7, 6)),
    "Llama": (Llama, (TOKENS, 2, 5, 30), (TOKENS, 3, 7, 30)),
    "nanoGPT": (GPT, (TOKENS, 2, 5, 20), (TOKENS, 3, 7, 20)),
    "text CNN": (TextCNN, (TOKENS, 2, 6, 40), (TOKENS, 3, 9, 40)),
    "fastText": (FastText, (TOKENS, 2, 6, 40), (TOKENS, 3, 9, 40)),
    "TCN": (TCN, (2, 3, 8), (3, 3, 11)),
    "WaveNet": (WaveNet, (2, 2, 8), (3, 2, 11)),
    "1-D convolutions": (conv1d_net, (2, 2, 16), (3, 2, 24)),
    "3-D convolutions": (conv3d_net, (2, 1, 6, 6, 6), (3, 1, 8, 6, 7)),
    "LSTM tagger": (LSTMTagger, (TOKENS, 2, 5, 30), (TOKENS, 3, 7, 30)),
    "unrolled RNN": (UnrolledRNN, (2, 5, 4), (3, 5, 4)),
    "wide and deep": (WideAndDeep, (4, 6), (7, 6)),
    "tabular ResNet": (TabularResNet, (4, 6), (7, 6)),
    "factorization machine": (FactorizationMachine, (4, 5), (7, 5)),
    "mixture of experts": (MixtureOfExperts, (4, 6), (7, 6)),
    "siamese": (Siamese, (4, 8), (7, 8)),
    "graph convolutions": (Graph, (2, 5, 4), (3, 7, 4)),
    "PointNet": (PointNet, (2, 3, 6), (3, 3, 9)),
    "NeRF": (NeRF, (4, 3), (7, 3)),
    "highway": (Highway, (4, 6), (7, 6)),
    "SIREN": (siren, (4, 2), (7, 2)),
    "maxout": (Maxout, (4, 6), (7, 6)),
    "MLP": (mlp, (4, 6), (7, 6)),
}


def example(size):
    """An input of this size, in float64, or whole numbers."""
    if size[0] == TOKENS:
        return torch.randint(0, size[-1], size[1:-1])
    return torch.randn(size, dtype=torch.float64)
