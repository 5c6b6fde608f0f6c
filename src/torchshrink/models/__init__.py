"""The default models, what they carry to take raw rows, and how a model is kept on disk.

What is fitted on the training rows (means, scales, which levels occur) travels in the model as buffers: a saved model
takes raw rows, nothing of it is penalised, and a stacked program can hold one such set for each of its models.
"""

from torchshrink.models.files import load_model, save_model
from torchshrink.models.networks import BUILTIN_MODELS, build, mlp, model_settings, settings_of
from torchshrink.models.preprocessing import Preprocess, Rescale, fit_preprocessing, rows_dtype
from torchshrink.models.target_scale import TargetScale

__all__ = [
    "BUILTIN_MODELS",
    "Preprocess",
    "Rescale",
    "TargetScale",
    "build",
    "fit_preprocessing",
    "load_model",
    "mlp",
    "model_settings",
    "rows_dtype",
    "save_model",
    "settings_of",
]
