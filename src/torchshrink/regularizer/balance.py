"""A check of stationarity that needs no data: what a penalty spends on the two sides of a ReLU unit.

Multiply the weights and the bias into a hidden unit by t > 0 and divide the weights out of it by t: with ReLU between
them the network computes the same function, so the loss does not change, and at a stationary point of F the penalty
must not either, to first order. Its derivative at t = 1 is

    Σ_in w·∂Ω(w) − Σ_out w·∂Ω(w) = 0,

for every unit, whatever the data, the loss and the penalties are. With `L2` of one strength on weights and biases of
both sides it says that a unit's incoming and outgoing squared norms are equal; with `L1` that the sums of absolute
weights are. A bias without penalty does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from torchshrink.distributed import whole
from torchshrink.penalties import Penalty

_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU)  # f(t·x) = t·f(x) for t > 0
_TRANSPARENT = (nn.Dropout, nn.Identity)


@torch.no_grad()
def imbalance(model: nn.Module, penalty_of: Mapping[Tensor, Penalty]) -> float | None:
    """The largest relative difference between the two sides of a hidden unit: |in − out|/(in + out), over all units.

    Looked at are pairs of `nn.Linear` with a (leaky) ReLU between them, dropout aside, in a plain `nn.Sequential`.

    Args:
        model: any.
        penalty_of: the penalty in force on each penalised parameter.

    Returns:
        From 0 (balanced) to 1 (one side only); None where there is no such pair, or nothing on it is penalised.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    >>> from torchshrink.penalties import L2
    >>> _ = [nn.init.constant_(layer.weight, value) for layer, value in ((net[0], 1.0), (net[2], 2.0))]
    >>> imbalance(net, {net[0].weight: L2(0.1), net[2].weight: L2(0.1)})
    0.6000000238418579
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    largest: float | None = None
    for first, second in _pairs(model):
        held = [p for p in (first.weight, first.bias, second.weight) if p is not None]
        if any(uses[id(p)] > 1 or not p.requires_grad for p in held):
            continue  # tied or frozen: the two sides cannot move against each other
        if not any(p in penalty_of for p in held) or any(penalty_of[p].constraint for p in held if p in penalty_of):
            continue
        incoming, outgoing = _spent(first.weight, penalty_of, 1), _spent(second.weight, penalty_of, 0)
        if first.bias is not None:
            incoming = incoming + _spent(first.bias, penalty_of, None)
        both = incoming + outgoing
        relative = (incoming - outgoing).abs() / torch.where(both > 0, both, 1.0)
        largest = max(largest or 0.0, float(relative.max()))
    return largest


def _spent(w: Tensor, penalty_of: Mapping[Tensor, Penalty], dim: int | None) -> Tensor:
    """w·∂Ω(w), summed over ``dim``: one value per unit."""
    penalty, w = penalty_of.get(w), whole(w)
    spent = torch.zeros_like(w) if penalty is None else w * penalty.with_state(whole).grad(w)
    return spent if dim is None else spent.sum(dim)


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Linear, nn.Linear]]:
    """Linear layers that follow each other through a (leaky) ReLU."""
    chains = [module for module in model.modules() if type(module) is nn.Sequential]
    inner = {id(child) for chain in chains for child in chain if type(child) is nn.Sequential}
    for chain in chains:
        if id(chain) in inner:
            continue
        before: nn.Linear | None = None
        activated = False
        for module in _flat(chain):
            if type(module) is nn.Linear:
                if before is not None and activated and module is not before:
                    yield before, module
                before, activated = module, False
            elif isinstance(module, _HOMOGENEOUS):
                activated = True
            elif not isinstance(module, _TRANSPARENT):
                before = None


def _flat(chain: nn.Sequential) -> Iterator[nn.Module]:
    for module in chain:
        if type(module) is nn.Sequential:
            yield from _flat(module)
        else:
            yield module
