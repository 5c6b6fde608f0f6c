"""The canary: what torch keeps private is there and means what the library takes it for; and no other file uses any."""

import ast
import importlib
import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchshrink as ts
from torchshrink.errors import CannotStackError, SelectionError
from torchshrink.support import private_torch
from torchshrink.support.compiling import cannot_compile

SOURCE = Path(private_torch.__file__).parents[1]
LINEAR = nn.Linear(2, 1)
OWNERS = {
    "nn.Module": LINEAR,
    "Optimizer": torch.optim.SGD(LINEAR.parameters(), lr=0.1),
    "Tensor": LINEAR.weight,
    "DataLoader": DataLoader(TensorDataset(torch.ones(2))),
}


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in private_torch.NAMES.items() for name in names]
)
def test_torch_still_has(owner, name):
    if owner.startswith("torch."):
        parent, _, last = owner.rpartition(".")
        module = importlib.import_module(owner) if owner == "torch._decomp" else getattr(_module(parent), last)
        assert getattr(module, name, None) is not None
    else:
        assert name in dir(OWNERS[owner])


def _module(name):
    return torch if name == "torch" else getattr(_module(name.rpartition(".")[0]), name.rpartition(".")[2])


def test_functorch_and_batched_tensors_are_seen():
    seen = []

    def look(x):
        seen.append((private_torch.under_functorch(), private_torch.is_batched(x)))
        return x

    look(torch.ones(2))
    torch.func.vmap(look)(torch.ones(2, 2))
    torch.func.grad(lambda x: look(x).sum())(torch.ones(2))
    assert seen == [(False, False), (True, True), (True, False)]


def test_what_is_under_vmap_can_be_read_in_whole():
    seen = []

    def look(x):
        seen.append(private_torch.unbatched(x))
        return x

    torch.func.vmap(torch.func.vmap(look))(torch.arange(6.0).view(2, 3))
    torch.func.grad(lambda x: look(x).sum())(torch.ones(2))
    torch.func.vmap(torch.func.grad(lambda x: look(x).sum()))(torch.ones(2, 2))
    look(torch.ones(2))
    assert seen[0].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert seen[1] is None
    assert seen[2] is None
    assert seen[3].tolist() == [1.0, 1.0]


def test_autocast_is_seen():
    assert not private_torch.any_autocast()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert private_torch.any_autocast()


def test_operations_without_a_batching_rule_are_errors_inside_and_the_switch_is_put_back():
    def unbatched(x):
        return torch.ops.aten.lstm.input(x, [x[0], x[0]], [], False, 1, 0.0, False, False, False)

    functorch = torch._C._functorch
    assert functorch._is_vmap_fallback_enabled()
    with private_torch.without_vmap_fallback():
        assert not functorch._is_vmap_fallback_enabled()
        with pytest.raises(RuntimeError):
            torch.func.vmap(unbatched)(torch.ones(2, 1, 3))
    assert functorch._is_vmap_fallback_enabled()


def test_onednn_is_off_inside_and_put_back():
    before = torch.backends.mkldnn.enabled
    with private_torch.without_onednn():
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled == before


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("data", ["input", "data"])
def test_every_recurrent_layer_has_a_decomposition(name, data):
    assert callable(private_torch.decomposed(getattr(getattr(torch.ops.aten, name), data)))


def test_hooks_are_seen_wherever_they_may_be():
    hooks = [
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: m.register_forward_pre_hook(lambda *_: None),
        lambda m: m.register_full_backward_hook(lambda *_: None),
        lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    ]
    for hook in hooks:
        module = nn.Linear(2, 1)
        assert not private_torch.has_hooks(module)
        hook(module)
        assert private_torch.has_hooks(module)
    for hook in (lambda o: o.register_step_pre_hook(print), lambda o: o.register_step_post_hook(print)):
        optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        assert not private_torch.has_step_hooks(optimizer)
        hook(optimizer)
        assert private_torch.has_step_hooks(optimizer)
    for name in ("register_hook", "register_post_accumulate_grad_hook"):
        parameter = nn.Parameter(torch.ones(2))
        assert not private_torch.has_gradient_hooks(parameter)
        getattr(parameter, name)(lambda grad: None)
        assert private_torch.has_gradient_hooks(parameter)


@pytest.mark.parametrize("withheld", [False, True], ids=["by torch._inductor", "by torch.compile"])
def test_what_changes_its_tensors_is_one_program(monkeypatch, withheld):
    problem = cannot_compile()
    if problem is not None:
        pytest.skip(problem)
    if withheld:
        monkeypatch.delattr("torch._inductor.compile")

    def step(number, x, y):
        y.copy_(y + number * x)
        x.copy_(x.sin() - y)

    program = private_torch.compiled(step)
    found = [torch.tensor(0.5), torch.arange(4.0), torch.ones(4)]
    expected = [each.clone() for each in found]
    for number in (0.5, 0.25):
        found[0], expected[0] = torch.tensor(number), torch.tensor(number)
        assert program(*found) is None
        step(*expected)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_function_that_cannot_be_compiled_has_changed_nothing():
    def step(x):
        x.mul_(2)
        raise RuntimeError("out of memory")

    x = torch.ones(2)
    with pytest.raises(RuntimeError, match="out of memory"):
        private_torch.compiled(step)(x)
    assert x.tolist() == [1.0, 1.0]


def test_a_child_of_two_names_is_named_twice():
    both = nn.Sequential(LINEAR, LINEAR)
    both.register_module("none", None)
    assert private_torch.children_of(both) == {"0": LINEAR, "1": LINEAR, "none": None}


def test_workers_end_at_once():
    before = {child.pid for child in multiprocessing.active_children()}  # joblib's, of other tests, stay a while
    loading = DataLoader(TensorDataset(torch.ones(4)), num_workers=1, persistent_workers=True)
    batches = iter(loading)
    next(batches)
    assert {child.pid for child in multiprocessing.active_children()} - before
    private_torch.end_workers(loading)
    assert not {child.pid for child in multiprocessing.active_children()} - before
    private_torch.end_workers(OWNERS["DataLoader"])  # one that has none


def test_steps_under_way_count_those_of_the_same_optimizer():
    counted = []

    class Inner(torch.optim.SGD):
        def step(self, closure=None):
            counted.append((private_torch.steps_under_way(self), private_torch.steps_under_way(OWNERS["Optimizer"])))
            return super().step(closure)

    optimizer = Inner(nn.Linear(2, 1).parameters(), lr=0.1)
    assert private_torch.steps_under_way(optimizer) == 0
    optimizer.step()
    assert counted == [(1, 0)]


# --- a torch that has not got something ---


def test_lanes_are_refused_in_one_line_where_torch_lacks_what_they_need(monkeypatch):
    monkeypatch.delattr(torch._C._functorch, "_set_vmap_fallback_enabled")
    with pytest.raises(CannotStackError, match=r"^torch \S+ has not a switch for vmap's fallback.*looks for it$"):
        private_torch.without_vmap_fallback().__enter__()
    with pytest.raises(CannotStackError, match="a decomposition of nothing"):
        private_torch.decomposed("nothing")


def test_fully_shard_is_refused_in_one_line_where_its_parameters_are_elsewhere():
    with pytest.raises(SelectionError, match=r"the parameters of fully_shard.*; use DistributedDataParallel$"):
        private_torch.fsdp_parameters(LINEAR)


def test_what_cannot_be_seen_to_have_no_hooks_counts_as_having_some(monkeypatch):
    module = nn.Linear(2, 1)
    monkeypatch.delattr(module, "_forward_hooks")
    assert private_torch.has_hooks(module)


# --- no other file ---


def _private_uses(path):
    """Names of torch's that begin with one underscore, in a file's imports and attributes."""
    theirs = {name for owner in OWNERS.values() for name in dir(owner)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for a in node.names if a.name.startswith("torch.") for part in a.name.split(".")]
        elif isinstance(node, ast.Attribute) and _is_foreign(node, theirs):
            names = [node.attr]
        else:
            continue
        yield from (name for name in names if name.startswith("_") and not name.startswith(("__", "_foreach_")))


def _is_foreign(node, theirs):
    owner = ast.unparse(node.value)
    return (node.attr in theirs and owner != "self") or owner.partition(".")[0] == "torch"


def test_no_other_file_uses_what_torch_keeps_private():
    found = {str(p.relative_to(SOURCE)): sorted(set(_private_uses(p))) for p in sorted(SOURCE.rglob("*.py"))}
    used = found.pop("support/private_torch.py")
    assert "_parameters" in used  # the search finds something
    assert found.pop("models/preprocessing.py") == ["_apply"]  # overrides it, to keep float64 digits
    assert {name: uses for name, uses in found.items() if uses} == {}


def test_the_list_of_names_is_complete():
    listed = {name for names in private_torch.NAMES.values() for name in names}
    module = Path(private_torch.__file__)
    beyond = {
        "_C",
        "_decomp",
        "_functorch",
        "_dynamo",
        "_inductor",
        "_subclasses",
        "_python_dispatch",
        "_ops",
        "_pytree",
        "_NormBase",
        "_ConvNd",
        "_DropoutNd",
        "_get_fsdp_state",
    }
    assert set(_private_uses(module)) <= listed | beyond


def test_a_regularizer_still_acts_where_torch_does_not_say_what_is_on(monkeypatch):
    linear = nn.Linear(2, 1)
    expected = ts.Regularizer(linear, ts.L1(0.1)).value()
    monkeypatch.setattr(private_torch, "under_functorch", private_torch._yes)
    monkeypatch.setattr("torchshrink.support.precision.any_autocast", private_torch._yes)
    assert torch.equal(ts.Regularizer(linear, ts.L1(0.1)).value(), expected)
