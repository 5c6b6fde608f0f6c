"""Stacked multilayer perceptrons: the special case that `torchshrink.models.mlp` makes, without vmap.

With the rows last, a layer of all lanes is one batched product W·H + b on contiguous tensors, the first layer of all
strengths of a fold is one large product, and the softmax runs over a dimension that is not the last, where it is some
twenty times faster for few classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchshrink.data.lazy import LazyRows
from torchshrink.models import Rescale
from torchshrink.paths.engines.linear_chain import encode_folds, parts
from torchshrink.paths.training_spec import TrainingSpec

Named = Mapping[str, Tensor]


@final
class DenseProgram:
    """The losses of all lanes of a chain of linear layers, and their gradients; only of what `chain.dense_fits`.

    Args:
        spec: how each lane is trained.
        models: each fold's, its preprocessing fitted.
        skeleton: one of the same structure, whose mode, training or evaluation, decides what dropout does.
    """

    def __init__(self, spec: TrainingSpec, models: Sequence[nn.Module], skeleton: nn.Module) -> None:
        self._classes = isinstance(spec.loss, nn.CrossEntropyLoss)
        self._bits = isinstance(spec.loss, nn.BCEWithLogitsLoss)
        self._y = spec.y.flatten()
        self._chain = [module for module in parts(skeleton)[1] if not isinstance(module, nn.Flatten)]
        self._names = {id(p): name for name, p in skeleton.named_parameters()}
        self._names |= {id(b): name for name, b in skeleton.named_buffers()}
        self._fronts = [parts(model)[0] for model in models]
        # (F, n, d); rows that have to be read are encoded batch by batch
        self._encoded = None if isinstance(spec.X, LazyRows) else encode_folds(self._fronts, [spec.X] * len(models))
        self._memory: dict[tuple[Any, ...], Tensor] = {}

    @property
    def has_rows(self) -> bool:
        """Whether it has encoded all rows, and needs those of no batch."""
        return self._encoded is not None

    def __call__(
        self, parameters: Named, own: Named, shared: Named, rows: Tensor, batch: Tensor | None, weights: Tensor | None
    ) -> Tensor:
        """The mean loss of each lane's batch (F, S): row numbers (F, B), rows (F, B, …) and weights (F, B) or None."""
        lanes = _Lanes(parameters, shared, self._names)
        h = self._inputs(rows, batch)
        for module in self._chain:
            if isinstance(module, nn.Linear):
                h = _linear(*lanes.of_layer(module, products=len(h)), h).view(lanes.count, module.out_features, -1)
            else:
                h = _between(module, h, lanes)
        return self._mean_losses(h, rows, weights, lanes)

    @torch.no_grad()
    def differentiate(
        self,
        parameters: Mapping[str, nn.Parameter],
        shared: Named,
        rows: Tensor,
        batch: Tensor | None,
        weights: Tensor | None,
    ) -> Tensor:
        """As a call; and each parameter's ``grad`` becomes the gradient of the sum of all lanes' losses.

        Linear layers are differentiated by hand, what is between them by autograd. Outputs and gradients stay in the
        same memory from step to step: fresh memory from the system would take a CPU as long as the products do.
        """
        lanes = _Lanes(parameters, shared, self._names)
        h = self._inputs(rows, batch)
        to_input: list[Callable[[Tensor], Tensor]] = []  # of each module: from its output's gradient to its input's
        learns = False  # whether anything below is trained, and so needs a gradient
        ours = False  # whether h is in our own memory, and nothing else looks at it
        for number, module in enumerate(self._chain):
            if isinstance(module, nn.Linear):
                if learns or lanes.trains(module):
                    to_input.append(self._backward_of(number, module, h, lanes, through=learns))
                w, bias = lanes.of_layer(module, products=len(h))
                h = _linear(w, bias, h, out=self._take((number, "h"), h, (len(h), w.shape[1], h.shape[2])))
                h = h.view(lanes.count, module.out_features, -1)
                learns, ours = learns or lanes.trains(module), True
            elif not learns:
                h, ours = _between(module, h, lanes), False
            elif ours and type(module) is nn.ReLU:
                to_input.append(_backward_of_relu(torch.relu_(h)))
            else:
                with torch.enable_grad():
                    x = h.requires_grad_()
                    made = _between(module, x.clone() if vars(module).get("inplace", False) else x, lanes)
                to_input.append(_backward_by_autograd(x, made))
                h, ours = made.detach(), False
        losses, g = self._losses_and_gradient(h, rows, weights, lanes)
        for backward in reversed(to_input):
            g = backward(g)
        return losses

    def _backward_of(
        self, number: int, layer: nn.Linear, x: Tensor, lanes: _Lanes, *, through: bool
    ) -> Callable[[Tensor], Tensor]:
        """Of h = W·x + b: ∂W = ∂h·xᵀ, ∂b = Σ ∂h over the rows, and ∂x = Wᵀ·∂h where something ``through`` it learns."""

        def backward(g: Tensor) -> Tensor:
            g = g.reshape(len(x), -1, x.shape[2])
            weight, bias = lanes.trained(layer.weight), lanes.trained(layer.bias)
            if weight is not None:
                grad, first = lanes.gradient(weight)
                grad = grad.view(len(x), -1, x.shape[1])
                torch.baddbmm(grad, g, x.transpose(1, 2), beta=0 if first else 1, out=grad)  # 0: whatever was in it
            if bias is not None:
                grad, first = lanes.gradient(bias)
                grad = grad.view(len(x), -1)
                torch.sum(g, 2, out=grad) if first else grad.add_(g.sum(2))
            if not through:
                return g
            w, _ = lanes.of_layer(layer, products=len(x))
            return torch.bmm(w.transpose(1, 2), g, out=self._take((number, "g"), x, x.shape))

        return backward

    def forget(self) -> None:
        """Give up the memory that is kept from step to step: shapes have changed."""
        self._memory.clear()

    def _take(self, use: tuple[int, str], like: Tensor, shape: Sequence[int]) -> Tensor:
        """The same memory for the same use and shape in every step."""
        key = (*use, *shape)
        if key not in self._memory:
            self._memory[key] = torch.empty(*shape, dtype=like.dtype, device=like.device)
        return self._memory[key]

    def _inputs(self, rows: Tensor, batch: Tensor | None) -> Tensor:
        """(F, d, B): the same for all strengths of a fold; after the first layer it is (F·S, d, B)."""
        if self._encoded is None:
            assert batch is not None
            return encode_folds(self._fronts, batch).transpose(1, 2)
        fold = torch.arange(len(rows), device=rows.device)[:, None]
        return self._encoded[fold, rows].transpose(1, 2)

    def _mean_losses(self, h: Tensor, rows: Tensor, weights: Tensor | None, lanes: _Lanes) -> Tensor:
        if self._classes:
            each = -functional.log_softmax(h, dim=1).gather(1, self._codes(rows, lanes)).squeeze(1)  # (F·S, B)
        elif self._bits:
            each, _ = self._bit_losses(h, rows, lanes)
        else:
            each = self._residuals(h, rows, lanes).square()
        return _mean(each.view(*lanes.shape, -1), weights)

    def _losses_and_gradient(
        self, h: Tensor, rows: Tensor, weights: Tensor | None, lanes: _Lanes
    ) -> tuple[Tensor, Tensor]:
        """`_mean_losses`, and the gradient of their sum with respect to h."""
        if self._classes:
            codes = self._codes(rows, lanes)
            logs = functional.log_softmax(h, dim=1)
            each = -logs.gather(1, codes).squeeze(1)
            g = logs.exp_().scatter_add_(
                1, codes, logs.new_full((1, 1, 1), -1.0).expand_as(codes)
            )  # p − 1 at the class
        elif self._bits:
            each, wanted = self._bit_losses(h, rows, lanes)
            g = (torch.sigmoid(h.view_as(wanted)) - wanted).view_as(h)
        else:
            residuals = self._residuals(h, rows, lanes)
            each, g = residuals.square(), (2 * residuals).view_as(h)
        if weights is None:
            g = g.div_(rows.shape[1])
        else:
            share = (weights / weights.sum(1, keepdim=True))[:, None].expand(*lanes.shape, -1)  # (F, S, B)
            g = g.view(*lanes.shape, -1, g.shape[-1]).mul_(share.unsqueeze(2)).view_as(h)
        return _mean(each.view(*lanes.shape, -1), weights), g

    def _codes(self, rows: Tensor, lanes: _Lanes) -> Tensor:
        """The classes (F·S, 1, B) of the rows (F, B)."""
        return self._y[rows][:, None].expand(*lanes.shape, -1).reshape(lanes.count, 1, -1)

    def _bit_losses(self, h: Tensor, rows: Tensor, lanes: _Lanes) -> tuple[Tensor, Tensor]:
        """Each row's cross entropy of one logit, and the 0 or 1 that it is to be, both (F, S, B)."""
        z = h.view(*lanes.shape, -1)
        wanted = self._y[rows][:, None].expand_as(z)
        return functional.binary_cross_entropy_with_logits(z, wanted, reduction="none"), wanted

    def _residuals(self, h: Tensor, rows: Tensor, lanes: _Lanes) -> Tensor:
        return h.view(*lanes.shape, -1) - self._y[rows][:, None]


def _mean(each: Tensor, weights: Tensor | None) -> Tensor:
    """Over the rows: (F, S) of (F, S, B), with weights (F, B)."""
    return each.mean(2) if weights is None else (each * weights[:, None]).sum(2) / weights.sum(1)[:, None]


class _Lanes:
    """The stacked tensors of one step, by the skeleton's own."""

    def __init__(self, parameters: Named, shared: Named, names: Mapping[int, str]) -> None:
        self.shape = next(iter(parameters.values())).shape[:2]  # (F, S)
        self.count = self.shape[0] * self.shape[1]
        self._parameters, self._shared, self._names = parameters, shared, names
        self._written: set[int] = set()

    def of_fold(self, tensor: Tensor) -> Tensor:
        """(F, …) of one that no lane trains."""
        return self._shared[self._names[id(tensor)]]

    def of_layer(self, layer: nn.Linear, *, products: int) -> tuple[Tensor, Tensor | None]:
        """W (products, ·, in) and b (products, ·, 1): one product for each lane, or one for all strengths of a fold."""
        bias: Tensor | None = layer.bias
        w = self._stack(layer.weight).reshape(products, -1, layer.in_features)
        return w, None if bias is None else self._stack(bias).reshape(products, -1, 1)

    def trained(self, tensor: Tensor | None) -> nn.Parameter | None:
        """The stacked parameter (F, S, …), or None where it is frozen or there is none."""
        found = None if tensor is None else self._parameters.get(self._names[id(tensor)])
        return found if isinstance(found, nn.Parameter) else None

    def trains(self, layer: nn.Linear) -> bool:
        """Whether anything in it is trained."""
        return self.trained(layer.weight) is not None or self.trained(layer.bias) is not None

    def gradient(self, p: nn.Parameter) -> tuple[Tensor, bool]:
        """Where its gradient goes, and whether nothing of this step is in there: layers may share a tensor."""
        first = id(p) not in self._written
        self._written.add(id(p))
        if p.grad is None:
            p.grad = torch.empty_like(p, memory_format=torch.contiguous_format)
        return p.grad, first

    def _stack(self, tensor: Tensor) -> Tensor:  # (F, S, …)
        name = self._names[id(tensor)]
        if name in self._parameters:
            return self._parameters[name]
        frozen = self._shared[name]
        return frozen.unsqueeze(1).expand(*self.shape, *frozen.shape[1:])


def _linear(w: Tensor, bias: Tensor | None, h: Tensor, *, out: Tensor | None = None) -> Tensor:
    return torch.bmm(w, h, out=out) if bias is None else torch.baddbmm(bias, w, h, out=out)


def _between(module: nn.Module, h: Tensor, lanes: _Lanes) -> Tensor:
    """What a module other than a linear layer makes of h."""
    if isinstance(module, Rescale):
        mean, scale = lanes.of_fold(module.mean), lanes.of_fold(module.scale)
        return mean[:, None, None] + scale[:, None, None] * h.view(*lanes.shape, -1)
    if isinstance(module, nn.Dropout) and len(h) < lanes.count:  # it differs by lane
        h = h.repeat_interleave(lanes.shape[1], dim=0)
    return module(h)  # type: ignore[no-any-return]


def _backward_of_relu(output: Tensor) -> Callable[[Tensor], Tensor]:
    def backward(g: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward.grad_input(g, output, 0, grad_input=g)  # type: ignore[no-any-return]

    return backward


def _backward_by_autograd(x: Tensor, made: Tensor) -> Callable[[Tensor], Tensor]:
    def backward(g: Tensor) -> Tensor:
        return torch.autograd.grad(made, x, g.reshape(made.shape))[0]

    return backward
