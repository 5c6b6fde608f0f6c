"""Small models from the configurations of transformers and timm, where these are installed: nothing is downloaded."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Case = tuple[Callable[[], nn.Module], tuple[tuple[Any, ...], ...]]

_TIMM = {
    "resnet18": {"channels": (8, 12, 16, 16)},
    "mobilenetv3_small_050": {},
    "efficientnet_lite0": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20)},
    "densenet121": {"growth_rate": 4, "block_config": (2, 2, 2, 2)},
    "regnetx_002": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
    "mixer_s32_224": {"img_size": 64},
    "ghostnet_050": {},
    "swin_tiny_patch4_window7_224": {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 12,
                                     "depths": (1, 1), "num_heads": (2, 2)},
}  # fmt: skip


def from_packages(image: Callable[..., tuple[int, ...]]) -> dict[str, Case]:
    """Builders and inputs, by name; none where a package is missing."""
    return _transformers() | _timm(image)


def _transformers() -> dict[str, Case]:
    try:
        import transformers as t
    except ImportError:
        return {}
    t.logging.set_verbosity_error()
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    text = {"vocab_size": 50, "max_position_embeddings": 16}

    class First(nn.Module):
        """The tensor that a model of transformers gives first."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            """Its first output."""
            return self.model(tokens)[0]  # type: ignore[no-any-return]

    builders: dict[str, Callable[[], Any]] = {
        "BERT": lambda: t.BertModel(t.BertConfig(**small, **text)),
        "RoBERTa": lambda: t.RobertaModel(t.RobertaConfig(**small, **text, pad_token_id=1)),
        "DistilBERT": lambda: t.DistilBertModel(
            t.DistilBertConfig(**text, dim=24, n_layers=2, n_heads=3, hidden_dim=40)
        ),
        "GPT-2": lambda: t.GPT2Model(
            t.GPT2Config(vocab_size=50, n_positions=16, n_embd=24, n_layer=2, n_head=3, use_cache=False)
        ),
        "LLaMA": lambda: t.LlamaModel(t.LlamaConfig(**small, **text, use_cache=False)),
        "T5 encoder": lambda: t.T5EncoderModel(
            t.T5Config(vocab_size=50, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3)
        ),
    }

    def wrapped(build: Callable[[], Any]) -> Callable[[], nn.Module]:
        return lambda: First(build())

    inputs = tuple((torch.randint(2, 50, size),) for size in ((2, 6), (3, 9)))
    return {f"{name} (transformers)": (wrapped(build), inputs) for name, build in builders.items()}


class _Any(type):
    """A class that has every attribute that it is asked for."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for a package of which nothing but names is used."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Any of its modules."""
        if name.split(".")[0] != self.package:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """A module that has every class that it is asked for."""
        module = types.ModuleType(spec.name)
        module.__version__ = "0.0.0"  # type: ignore[attr-defined]

        def missing(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Any(name, (nn.Module,), {})

        module.__getattr__ = missing  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing."""


def stand_in(package: str) -> None:
    """Let a package that is not installed be imported, with empty classes under every name."""
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        sys.meta_path.append(_Absent(package))


def _timm(image: Callable[..., tuple[int, ...]]) -> dict[str, Case]:
    if importlib.util.find_spec("timm") is None:
        return {}
    stand_in("torchvision")  # of which timm's models use nothing but the name of a frozen normalisation
    try:
        import timm
    except (ImportError, AttributeError, TypeError) as reason:
        print(f"timm is left out: {reason}", file=sys.stderr)
        return {}

    def builder(name: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
        return lambda: timm.create_model(name, pretrained=False, num_classes=5, **settings)

    found: dict[str, Case] = {}
    for name, settings in _TIMM.items():
        fixed = settings.get("img_size")
        sizes = (image(fixed or 32), image(fixed or 48, 3))
        inputs = tuple((torch.randn(size, dtype=torch.float64),) for size in sizes)
        found[f"{name} (timm)"] = (builder(name, settings), inputs)
    return found
