"""Warns where a model's smaller dtype makes different numbers equal."""

from __future__ import annotations

import warnings

import torch

from torchshrink.data.lazy import LazyRows, Rows
from torchshrink.errors import DataWarning

_LOST = 1e-3  # of a column's standard deviation: what rounding may change


def warn_of_rounding(name: str, values: Rows, dtype: torch.dtype, *, advice: str) -> None:
    """Warn where bringing ``values`` (n, …) to ``dtype`` rounds away what a column's values differ by.

    Warns:
        DataWarning: it does, as for coordinates or times in float32.
    """
    if isinstance(values, LazyRows) or not values.is_floating_point() or values.ndim > 2:
        return
    if torch.finfo(dtype).eps <= torch.finfo(values.dtype).eps:
        return
    columns = values.detach().reshape(len(values), -1)  # (n, d)
    error = (columns.to(dtype).to(columns.dtype) - columns).nan_to_num().square().mean(0).sqrt()
    centred = columns - columns.nanmean(0)
    spread = centred.nan_to_num().square().mean(0).sqrt()
    lost = (error > _LOST * spread) & (spread > 0)
    if bool(lost.any()):
        worst = int(torch.where(lost, error / spread, 0).argmax())
        before, after = (len(each[~each.isnan()].unique()) for each in (columns[:, worst], columns[:, worst].to(dtype)))
        which = f"column {worst} of {name}" if columns.shape[1] > 1 else name
        loss = f"rounds by {100 * float(error[worst] / spread[worst]):.2g} % of the standard deviation"
        kinds = [str(each).removeprefix("torch.") for each in (values.dtype, dtype)]
        warnings.warn(
            f"{which}: the model's {kinds[1]} "
            + (f"keeps {after} of {before} different values of {kinds[0]}" if after < before else loss)
            + f": {advice}",
            DataWarning,
            stacklevel=4,
        )
