"""What test_distributed.py runs alike in one process and in several: each case returns plain values to compare."""

import os
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.torch_version import TorchVersion

import torchshrink as ts
from torchshrink.errors import ObjectiveWarning, SelectionWarning
from torchshrink.regularizer import terms

ROWS, BATCH = 32, 8
STEPS = 20  # until there are zeros
TIMEOUT = 60.0
FULLY_SHARDS = torch.__version__ >= TorchVersion("2.7")  # before, fully_shard does not run on CPUs
SPREADS = ("ddp", "fsdp", "tp") if FULLY_SHARDS else ("ddp", "tp")

PENALTIES = {
    "L1": ts.L1(0.02),
    "rows": ts.GroupLasso(0.03, dim=0),
    "columns": ts.GroupLasso(0.03, dim=1),
    "tensor": ts.GroupLasso(0.01, dim=()),
    "sparse columns": ts.SparseGroupLasso(0.005, 0.01, dim=1),
    "elastic net": ts.ElasticNet(0.01, 0.02),
    "L2": ts.L2(0.03),
    "MCP": ts.MCP(0.02),
    "L2SP": ts.L2SP(0.1),
    "nuclear": ts.NuclearNorm(0.03),
    "orthogonal": ts.Orthogonal(0.01),
    "max norm": ts.MaxNorm(0.6, dim=1),
    "ball": ts.L1Ball(1.5),
    "unit norm": ts.UnitNorm(dim=1),
    "non negative": ts.NonNegative(),
    "gradual": ts.L0Ball(ts.Gradual(0.4, steps=8)),
    "two of four": ts.NM(2, 4),
    "log sum": ts.LogSum(0.004, 0.2),
}
_COLUMNS, _ROWS = (1.0, 0.0, 2.0, 0.5, 1.0, 3.0, 1.0), ((1.0,), (0.0,), (2.0,), (0.5,))
RULES = {
    "weighted L1": {"0.weight": ts.L1(0.02, weights=_COLUMNS), "2.weight": ts.L1(0.02, weights=_ROWS)},
    "weighted L2SP": {"0.weight": ts.L2SP(0.1, weights=_COLUMNS), "2.weight": ts.L2SP(0.1, weights=_ROWS)},
    "weighted groups": {
        "0.weight": ts.GroupLasso(0.012, dim=1, weights=_COLUMNS),
        "2.weight": ts.GroupLasso(0.012, dim=0, weights=sum(_ROWS, ())),
    },
    "labels": {
        "0.weight": ts.GroupLasso(0.012, dim=1, labels=(0, 1, 0, 2, 2, 2, 3)),
        "2.weight": ts.SparseGroupLasso(0.005, 0.01, labels=(0, 1, 1, 0)),
    },
    "size": {"2.weight": ts.GroupLasso(0.012, size=2)},
}
OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "plain sgd": lambda params: torch.optim.SGD(params, lr=0.05),
    "fused adam": lambda params: torch.optim.Adam(params, lr=0.01, fused=True),
    "adadelta": lambda params: torch.optim.Adadelta(params, lr=1.0),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.5),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.1),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.01),
}

# (how it is spread, penalty, optimizer, how the penalty acts, steps)
TRAININGS = [
    (spread, penalty, optimizer, "auto", 10 if spread == "ddp" else STEPS)  # whole weights need no zeros
    for spread in ("ddp", "fsdp", "tp")
    for penalty in ("L1", "rows", "columns")
    for optimizer in ("sgd", "adam")
]
TRAININGS += [
    ("fsdp", penalty, "adam", "auto", 10)
    for penalty in ("tensor", "sparse columns", "elastic net", "MCP", "L2", "L2SP", "orthogonal", "max norm", "ball")
]
TRAININGS += [
    ("fsdp", penalty, "adam", "auto", 10)
    for penalty in ("unit norm", "non negative", "gradual", "two of four", "log sum")
]
TRAININGS += [("fsdp", "nuclear", "sgd", "auto", 10), ("tp", "nuclear", "sgd", "auto", 10)]
TRAININGS += [("fsdp", "columns", name, "auto", 10) for name in ("adadelta", "rmsprop", "adagrad", "nadam")]
TRAININGS += [("fsdp", "L2", "plain sgd", "decoupled", 10), ("fsdp", "rows", "plain sgd", "decoupled", 10)]
TRAININGS += [("fsdp", penalty, "fused adam", "auto", 10) for penalty in ("L1", "columns")]
TRAININGS += [
    (spread, penalty, "sgd", "loss", 10) for spread in ("ddp", "fsdp", "tp") for penalty in ("L2", "columns", "L2SP")
]
TRAININGS += [
    (spread, penalty, optimizer, "latent", 10)
    for spread in ("ddp", "fsdp", "tp")
    for penalty, optimizer in (("L1", "sgd"), ("columns", "adam"), ("nuclear", "adam"), ("MCP", "nadam"))
]
TRAININGS += [(spread, rules, "adam", "auto", 10) for spread in ("fsdp", "tp") for rules in RULES]
TRAININGS += [("fsdp", "weighted L1", "sgd", "loss", 10)]
TRAININGS += [("hybrid", penalty, "adam", "auto", 10) for penalty in ("L1", "columns")]
TRAININGS += [("fsdp and tp", penalty, "adam", "auto", 10) for penalty in ("L1", "rows", "columns")]


def network(how="fsdp"):
    # fully_shard over two processes cuts the rows 3 + 2, 2 + 2 and 1 + 0; torch's tensor parallelism wants even pieces.
    torch.manual_seed(1)
    hidden = {"tp": 8, "fsdp and tp": 6}.get(how, 5)
    return nn.Sequential(nn.Linear(7, hidden), nn.Tanh(), nn.Linear(hidden, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def spread_out(model, how):
    """The model over all processes; alone where there is one."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1:
        return model
    if how == "ddp":
        return DistributedDataParallel(model)
    if how == "tp":
        parallelize_module(model, init_device_mesh("cpu", (world,)), {"0": ColwiseParallel(), "2": RowwiseParallel()})
        return model
    mesh = {
        "fsdp": lambda: init_device_mesh("cpu", (world,)),
        "hybrid": lambda: init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("copies", "shards")),
        "fsdp and tp": lambda: init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("dp", "tp")),
    }[how]()
    if how == "fsdp and tp":
        parallelize_module(model, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        mesh = mesh["dp"]
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)  # the last layer is the root's own: gathered from the forward pass on
    return model


def data_of(how):
    """This process's share of each batch. With tensor parallelism alone every process sees all of it."""
    generator = torch.Generator().manual_seed(2)
    X = torch.randn(ROWS, 7, dtype=torch.float64, generator=generator)
    y = (X[:, :2].sum(1, keepdim=True)).tanh() + 0.1 * torch.randn(ROWS, 1, dtype=torch.float64, generator=generator)
    parts, part = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if how == "tp":
        parts, part = 1, 0
    elif how == "fsdp and tp" and parts > 1:
        parts, part = parts // 2, part // 2
    X, y = X.reshape(-1, BATCH, 7), y.reshape(-1, BATCH, 1)
    share = slice(part * BATCH // parts, (part + 1) * BATCH // parts)
    return X[:, share], y[:, share]


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def weights_of(model):
    return {name.removeprefix("module."): whole(p) for name, p in model.named_parameters()}


def train(how, penalty, optimizer_name, method, steps):
    model = spread_out(network(how), how)
    X, y = data_of(how)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    reg = ts.Regularizer(model, (PENALTIES | RULES)[penalty])
    value_at_start = None if reg.terms[0].penalty.constraint else reg.value().detach()
    if method != "loss":
        reg.attach(optimizer, method)
    for step in range(steps):
        optimizer.zero_grad()
        before = reg.value() if method == "loss" and step % 2 else None  # before the forward pass, or after it
        loss = (model(X[step % len(X)]) - y[step % len(X)]).square().mean()
        if method == "loss":
            loss = loss + (reg.value() if before is None else before)
        loss.backward()
        optimizer.step()

    def closure():
        model.zero_grad()
        loss = (model(X.reshape(-1, 7)) - y.reshape(-1, 1)).square().mean()
        loss.backward()
        return loss

    certificate = reg.certify(closure)
    state = {} if penalty != "L2SP" else {k: whole(v["anchor"]) for k, v in reg.state_dict()["bound"].items()}
    return {
        "weights": weights_of(model),
        "value at start": value_at_start,
        "value": None if reg.terms[0].penalty.constraint else whole(reg.value()),
        "sparsity": reg.sparsity().to_dict(),
        "summary": reg.summary(),
        "weights of": repr(reg).partition(" of ")[0],
        "certificate": certificate.to_dict(),
        "state": state,
    }


def said(call):
    """The message of what a call raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing raised"


def values():
    """value() and its gradient, for every penalty and way to spread, before and after a forward pass."""
    out = {}
    for how in SPREADS:
        model = spread_out(network(how), how)
        X, _ = data_of("tp")
        for name, penalty in PENALTIES.items():
            if penalty.constraint:
                continue
            reg = ts.Regularizer(model, penalty)
            if name == "L2SP":
                with torch.no_grad():
                    for term in reg.terms:
                        term.parameter.mul_(1.5)
            for when in ("sharded", "gathered"):
                if when == "gathered":
                    with torch.no_grad():
                        model(X[0])
                value = reg.value()
                grads = torch.autograd.grad(value, [t.parameter for t in reg.terms])
                out[how, name, when] = {"value": value.detach(), "gradients": list(map(whole, grads))}
            plain = terms.plain_value(terms.bundles((t.penalty, t.parameter) for t in reg.terms))
            out[how, name, "plain"] = {"value": plain.detach(), "gradients": []}
            if name == "L2SP":
                with torch.no_grad():
                    for term in reg.terms:
                        term.parameter.div_(1.5)
    return out


def names():
    """The same rules and the same names, wrapped or not."""
    out = {}
    rules = {"0.weight": ts.L1(0.1), "2.*": ts.GroupLasso(0.1, dim=1), nn.Linear: None}
    for how in SPREADS:
        model = spread_out(network(how), how)
        reg = ts.Regularizer(model, rules)
        out[how] = [(c.name, str(c.penalty), c.rule, c.reason, tuple(c.parameter.shape)) for c in reg.choices]
    return out


def after_a_forward_pass():
    """A Regularizer made while fully_shard shows gathered copies binds what the optimizer holds."""
    model = spread_out(network(), "fsdp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model(torch.ones(2, 7, dtype=torch.float64))
    reg = ts.Regularizer(model, ts.L1(0.1)).attach(optimizer)
    return {"value": reg.value().detach()}


def state():
    """What L2SP remembers goes from one process to many and back."""
    torch.manual_seed(3)
    saved = {f"{i}.weight": {"anchor": torch.randn_like(network()[i].weight).detach()} for i in (0, 2, 4)}
    reg = ts.Regularizer(spread_out(network(), "fsdp"), ts.L2SP(0.1))
    reg.load_state_dict({"steps": 3, "scale": 1.0, "bound": saved})
    again = reg.state_dict()
    reg.load_state_dict(again)
    return {"value": reg.value().detach(), "anchors": {k: whole(v["anchor"]) for k, v in again["bound"].items()}}


def stale():
    """A Regularizer that was there before the sharding: in several processes only."""
    early = {}
    for how in SPREADS[1:]:
        model = network(how)
        reg = ts.Regularizer(model, ts.L1(0.1))
        attached = ts.Regularizer(model, ts.L1(0.1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        spread_out(model, how)
        early[f"{how} value"] = said(reg.value)
        early[f"{how} attach"] = said(lambda attached=attached, optimizer=optimizer: attached.attach(optimizer))
        early[f"{how} sparsity"] = said(reg.sparsity)
    old = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)
    early["older FSDP"] = said(lambda: ts.Regularizer(old, ts.L1(0.1)))
    return early


def gathered():
    """A Regularizer whose weights fully_shard has gathered, and one whose weights were assigned anew."""
    early = {}
    model = spread_out(network(), "fsdp")
    reg = ts.Regularizer(model, ts.L1(0.1))
    with torch.no_grad():
        model(torch.ones(2, 7, dtype=torch.float64))
    early["gathered, alive"] = said(reg.value)
    for module in model.modules():
        if module is model:
            module.reshard()
    sharded = {name: nn.Parameter(p.detach().clone()) for name, p in model.named_parameters()}
    model.load_state_dict(sharded, assign=True)
    early["assigned"] = said(reg.value)
    return early


def partial_gradients():
    """Sequence parallelism leaves the gradient of a normalisation weight as one summand per process."""
    torch.manual_seed(4)
    norm = nn.LayerNorm(6).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    if dist.is_initialized():
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        parallelize_module(norm, mesh, SequenceParallel())
        x = DTensor.from_local(x, mesh, [Replicate()]).redistribute(placements=[Shard(1)])
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.1)
    ts.Regularizer(norm, ts.L2(0.5), on=ts.ALL).attach(optimizer)
    reg = ts.Regularizer(norm, ts.L1(0.1), on=ts.ALL)
    for _ in range(3):
        optimizer.zero_grad()
        loss = norm(x).square().sum()
        loss = loss.full_tensor() if isinstance(loss, DTensor) else loss
        (loss + reg.value()).backward()
        optimizer.step()
    return weights_of(norm)


def reused_gradients():
    """certify puts back gradients that live in DDP's own memory."""
    model = network()
    if dist.is_initialized():
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    X, y = data_of("ddp")
    reg = ts.Regularizer(model, ts.L1(0.1))
    (model(X[0]) - y[0]).square().mean().backward()

    def closure():
        loss = (model(X[1]) - y[1]).square().mean()
        loss.backward()
        return loss

    reg.certify(closure)
    return [p.grad.clone() for p in model.parameters()]


def certify_unwrapped():
    """Gradients that nothing has averaged: the closure runs the model inside DDP's wrapper."""
    model = spread_out(network(), "ddp")
    bare = model.module if dist.is_initialized() else model
    X, y = data_of("ddp")

    def closure():
        loss = (bare(X[1]) - y[1]).square().mean()
        loss.backward()
        return loss.item()

    return ts.Regularizer(model, ts.L1(0.1)).certify(closure).to_dict()


CASES = {("train", *training): lambda training=training: train(*training) for training in TRAININGS}
CASES |= {
    (case.__name__,): case
    for case in (values, names, after_a_forward_pass, state, partial_gradients, reused_gradients, certify_unwrapped)
}
ONLY_SPREAD = {("stale",): stale, ("gathered",): gathered}


def runs_here(case):
    """Whether this torch can run it."""
    sharded = case[1] in ("fsdp", "hybrid", "fsdp and tp") if case[0] == "train" else case[0] in _SHARDED
    return FULLY_SHARDS or not sharded


_SHARDED = ("after_a_forward_pass", "state", "gathered")


def work(rank, world, folder):
    """One process: runs all cases and leaves its results in a file, or what went wrong in another."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"  # nothing leaves this machine
    torch.set_num_threads(1)
    warnings.simplefilter("error", ObjectiveWarning)
    warnings.simplefilter("error", SelectionWarning)
    folder = Path(folder)
    results = {}
    case = ()
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=TIMEOUT),
        )
        for case, call in (CASES | ONLY_SPREAD).items():
            if runs_here(case):
                torch.manual_seed(0)
                results[case] = call()
        torch.save(results, folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.txt").write_text(f"{case}\n{traceback.format_exc()}")
        os._exit(1)  # whoever waits for this process in a collective learns it from the parent
    dist.destroy_process_group()
