"""Optimizers that wrap another: the penalty acts where the weights are moved, or attach names who moves them."""

import copy
import itertools
import warnings
from collections import OrderedDict, defaultdict

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import torchshrink as ts
from situations import same_bits, values
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning, StepSizeError

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")


# --- wrappers as they are published, without what does not matter here ---


class SAM(Optimizer):
    """https://github.com/davda54/sam: two half-steps, and ``step`` for those who give a closure."""

    def __init__(self, params, base_optimizer, rho=0.05, **kwargs):
        super().__init__(params, {"rho": rho, **kwargs})
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        norm = torch.stack([p.grad.norm() for p in self.param_groups[0]["params"]]).norm()
        for p in self.param_groups[0]["params"]:
            self.state[p]["old_p"] = p.data.clone()
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for p in self.param_groups[0]["params"]:
            p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None
        self.first_step(zero_grad=True)
        torch.enable_grad()(closure)()
        self.second_step()


class TimmLookahead(Optimizer):
    """As timm's: without ``super().__init__``, with the hooks of steps alone."""

    def __init__(self, base_optimizer, alpha=0.5, k=6):
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self.lookahead_alpha, self.lookahead_k, self.count = alpha, k, 0
        self._base_optimizer = base_optimizer
        self.param_groups = base_optimizer.param_groups
        self.defaults = base_optimizer.defaults
        self.state = defaultdict(dict)

    @torch.no_grad()
    def step(self, closure=None):
        loss = self._base_optimizer.step(closure)
        self.count += 1
        if self.count % self.lookahead_k == 0:
            for p in self.param_groups[0]["params"]:
                state = self._base_optimizer.state[p]
                if "lookahead_slow_buff" not in state:
                    state["lookahead_slow_buff"] = p.clone()
                slow = state["lookahead_slow_buff"]
                slow.add_(p - slow, alpha=self.lookahead_alpha)
                p.copy_(slow)
        return loss


class DataLookahead(TimmLookahead):
    """As older ones, whose assignments to ``.data`` no counter of changes sees."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = self._base_optimizer.step(closure)
        self.count += 1
        if self.count % self.lookahead_k == 0:
            for p in self.param_groups[0]["params"]:
                slow = self.state[p].setdefault("slow", p.data.clone())
                slow += 0.5 * (p.data - slow)
                p.data.copy_(slow * 0.99)
        return loss


class LightningOptimizer:
    """As Lightning's and Fabric's: a proxy that is no subclass, and then is one of the inner class."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self.__class__ = type("Lightning" + type(optimizer).__name__, (type(self), type(optimizer)), {})

    @property
    def optimizer(self):
        return self._optimizer

    def step(self, closure=None):
        return self._optimizer.step(closure=closure)

    def __getattr__(self, name):
        return getattr(self._optimizer, name)


class AcceleratedOptimizer(Optimizer):
    """As Accelerate's: a subclass whose groups and state are properties."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    state = property(lambda self: self.optimizer.state)
    param_groups = property(lambda self: self.optimizer.param_groups)
    defaults = property(lambda self: self.optimizer.defaults)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        self.optimizer.step(closure)


class DuckWrapper:
    """As mmengine's and Opacus's forms: no Optimizer at all, but with an optimizer's methods."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        return self.optimizer.step(closure)


class InAList(DuckWrapper):
    def __init__(self, optimizer):
        self.chain = [optimizer]

    optimizer = property(lambda self: self.chain[0])


def plain_step(optimizer, closure):
    closure()
    optimizer.step()


def two_half_steps(optimizer, closure):
    closure()
    optimizer.first_step(zero_grad=True)
    closure()
    optimizer.second_step(zero_grad=True)


def step_after(optimizer, closure):
    """The gradients at the weights first, and then a step with a closure."""
    closure()
    optimizer.step(closure)


def step_with(optimizer, closure):
    optimizer.step(closure)


po = pytorch_optimizer


class Radius:
    """Of GSAM, whose schedule of it is a part of its call."""

    def step(self):
        return 0.05


def gsam(model, base):
    return po.GSAM(model.parameters(), base(model.parameters(), lr=0.05), model, Radius())


def gsam_step(optimizer, closure):
    optimizer.zero_grad()
    optimizer.step(torch.enable_grad()(lambda: (None, closure())))  # which set_closure() would do


def in_training_mode(wrapper):
    wrapper.train()
    return wrapper


MOVED, PUT_BACK = "moves the weights between the steps", "moves the weights and puts them back"
CHANGED = "changes the gradients before the steps"
WRAPPERS = {  # name -> how it is made of a model and a base, how a step is taken, what is warned of
    "SAM": (lambda m, base: SAM(m.parameters(), base, lr=0.05), two_half_steps, PUT_BACK),
    "SAM by closure": (lambda m, base: SAM(m.parameters(), base, lr=0.05), step_after, PUT_BACK),
    "timm's Lookahead": (lambda m, base: TimmLookahead(base(m.parameters(), lr=0.05)), plain_step, MOVED),
    "Lookahead by .data": (lambda m, base: DataLookahead(base(m.parameters(), lr=0.05)), plain_step, MOVED),
    "Lightning's": (lambda m, base: LightningOptimizer(base(m.parameters(), lr=0.05)), plain_step, None),
    "Lightning's by closure": (lambda m, base: LightningOptimizer(base(m.parameters(), lr=0.05)), step_with, None),
    "Accelerate's": (lambda m, base: AcceleratedOptimizer(base(m.parameters(), lr=0.05)), plain_step, None),
    "no Optimizer": (lambda m, base: DuckWrapper(base(m.parameters(), lr=0.05)), plain_step, None),
    "in a list": (lambda m, base: InAList(base(m.parameters(), lr=0.05)), plain_step, None),
    "three deep": (
        lambda m, base: LightningOptimizer(AcceleratedOptimizer(DuckWrapper(base(m.parameters(), lr=0.05)))),
        plain_step,
        None,
    ),
    "pytorch_optimizer.SAM": (lambda m, base: po.SAM(m.parameters(), base, lr=0.05), step_after, PUT_BACK),
    "pytorch_optimizer.WSAM": (
        lambda m, base: po.WSAM(m, m.parameters(), base, lr=0.05),
        step_after,
        MOVED,
    ),
    "pytorch_optimizer.FriendlySAM": (
        lambda m, base: po.FriendlySAM(m.parameters(), base, lr=0.05),
        step_after,
        PUT_BACK,
    ),
    "pytorch_optimizer.LookSAM": (lambda m, base: po.LookSAM(m.parameters(), base, lr=0.05), step_after, PUT_BACK),
    "pytorch_optimizer.GSAM": (gsam, gsam_step, PUT_BACK),
    "pytorch_optimizer.Lookahead": (lambda m, base: po.Lookahead(base(m.parameters(), lr=0.05)), plain_step, MOVED),
    "pytorch_optimizer.PCGrad": (lambda m, base: po.PCGrad(base(m.parameters(), lr=0.05)), plain_step, None),
    "pytorch_optimizer.OrthoGrad": (lambda m, base: po.OrthoGrad(base(m.parameters(), lr=0.05)), plain_step, CHANGED),
    "pytorch_optimizer.Magma": (lambda m, base: po.Magma(base(m.parameters(), lr=0.05)), plain_step, MOVED),
    "pytorch_optimizer.ScheduleFreeWrapper": (
        lambda m, base: in_training_mode(po.ScheduleFreeWrapper(base(m.parameters(), lr=0.05))),
        plain_step,
        PUT_BACK,
    ),
}


def problem():
    torch.manual_seed(0)
    X = torch.randn(40, 6, dtype=torch.float64)
    y = X[:, :1] * 2 + 0.1 * torch.randn(40, 1, dtype=torch.float64)
    return nn.Linear(6, 1).double(), X, y


def closure_for(model, X, y, optimizer=None):
    def closure():
        (optimizer or model).zero_grad()
        loss = (model(X) - y).square().mean() / 2
        loss.backward()
        return loss

    return closure


def trained(name, base, penalty, steps=30):
    make, take, warned = WRAPPERS[name]
    model, X, y = problem()
    outer = make(model, base)
    reg = ts.Regularizer(model, penalty).attach(outer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ObjectiveWarning)
        for _ in range(steps):
            take(outer, closure_for(model, X, y, outer))
    return model, reg, outer, [str(each.message) for each in caught if each.category is ObjectiveWarning], warned


@pytest.mark.parametrize("base", [SGD, Adam])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_penalty_acts_in_the_steps_that_move_the_weights(name, base):
    model, reg, _, said, warned = trained(name, base, ts.L1(0.5), steps=60)
    without = trained(name, base, ts.L1(0.0), steps=60)[0]
    assert reg.steps == 60
    assert float(model.weight.detach().abs().sum()) < 0.97 * float(without.weight.detach().abs().sum())
    assert [warned in line for line in said] == ([True] if warned else [])
    closure = closure_for(model, *problem()[1:])
    assert [note for note in reg.certify(closure).notes if warned and warned in note] == said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reg.summary()


@pytest.mark.parametrize("name", ["Lightning's", "Lightning's by closure", "Accelerate's", "no Optimizer", "in a list"])
@pytest.mark.parametrize("penalty", [ts.L1(0.1), ts.L2(0.1)])
def test_a_wrapper_that_only_passes_on_changes_no_bit(name, penalty):
    model = trained(name, Adam, penalty)[0]
    twin, X, y = problem()
    optimizer = Adam(twin.parameters(), lr=0.05)
    ts.Regularizer(twin, penalty).attach(optimizer)
    for _ in range(30):
        plain_step(optimizer, closure_for(twin, X, y, optimizer))
    assert same_bits(values(model), values(twin))


def test_sam_ends_where_its_own_loss_and_the_penalty_balance():
    """With its radius at 0 SAM is its base optimizer, and so is the penalised solution."""
    model, X, y = problem()
    outer = SAM(model.parameters(), SGD, rho=0.0, lr=0.1)
    reg = ts.Regularizer(model, ts.L1(0.3)).attach(outer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        for _ in range(500):
            two_half_steps(outer, closure_for(model, X, y, outer))
    assert reg.certify(closure_for(model, X, y)).ok(1e-8)
    assert int((model.weight == 0).sum()) == 5


class Changing(DuckWrapper, Optimizer):
    """Changes the gradients before each step, in one way or another."""

    def __init__(self, inner, change):
        DuckWrapper.__init__(self, inner)
        self.change = change
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        self._patch_step_function()

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.copy_(self.change(p.grad))
        return super().step(closure)


def changed(change, *, regularizers=1, steps=3):
    """What was warned of, and what is left in the outer optimizer after detaching."""
    model = problem()[0]
    outer = Changing(SGD(model.parameters(), lr=0.1), change)
    regs = [ts.Regularizer(model, penalty) for penalty in (ts.L1(0.1), ts.L2(0.1))[:regularizers]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ObjectiveWarning)
        for reg in regs:
            reg.attach(outer)
        for _ in range(steps):
            model(torch.ones(2, model.in_features, dtype=model.weight.dtype)).square().sum().backward()
            outer.step()
            outer.zero_grad()
    for reg in regs:
        reg.detach()
    return [str(one.message) for one in caught], outer._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    "change",
    [lambda g: g.clamp(-1e-3, 1e-3), lambda g: g - g.mean(), lambda g: 0.3 * g, lambda g: g + 1e-3, lambda g: -g],
)
def test_a_wrapper_that_changes_gradients_is_warned_of(change):
    said, left = changed(change)
    assert len(said) == 1
    assert "Changing changes the gradients before the steps of its SGD" in said[0]
    assert not left


@pytest.mark.parametrize("change", [lambda g: g, lambda g: g / 1024, lambda g: g * 2])
@pytest.mark.parametrize("regularizers", [1, 2])
def test_one_that_divides_by_a_loss_scale_is_not(change, regularizers):
    assert changed(change, regularizers=regularizers) == ([], {})


def test_one_that_is_known_to_change_them_is_warned_of_with_a_closure_too():
    model, X, y = problem()
    outer = po.OrthoGrad(SGD(model.parameters(), lr=0.1))
    ts.Regularizer(model, ts.L1(0.1)).attach(outer)
    with pytest.warns(ObjectiveWarning, match=r"OrthoGrad changes the gradients before the steps of its SGD"):
        outer.step(closure_for(model, X, y, outer))


def test_what_is_around_the_steps_is_looked_at_in_the_first_ones_only():
    model, X, y = problem()
    outer = AcceleratedOptimizer(SGD(model.parameters(), lr=0.05))
    ts.Regularizer(model, ts.L1(0.1)).attach(outer)
    for _ in range(60):
        plain_step(outer, closure_for(model, X, y, outer))
    with torch.no_grad():
        model.weight.mul_(2)  # warnings are errors here
    plain_step(outer, closure_for(model, X, y, outer))


# --- the wrapper is told before anything else is ---


@pytest.mark.parametrize("wrap", [LightningOptimizer, AcceleratedOptimizer, DuckWrapper, TimmLookahead, po.Lookahead])
def test_an_unknown_step_size_is_that_of_the_inner_optimizer(wrap):
    model = problem()[0]
    with pytest.raises(StepSizeError, match=r"^Rprop moves each weight"):
        ts.Regularizer(model, ts.L1(0.1)).attach(wrap(torch.optim.Rprop([model.weight])), method="prox")


class Composite(Optimizer):
    """Two optimizers that share the parameters between them."""

    def __init__(self, model):
        self.first, self.second = SGD([model.weight], lr=0.1), Adam([model.bias])
        super().__init__([model.weight, model.bias], {})

    def step(self, closure=None):
        self.first.step()
        self.second.step()


class Sharded(Optimizer):
    """As ZeroRedundancyOptimizer: the inner one has a part of the parameters."""

    def __init__(self, model):
        super().__init__(model.parameters(), {})
        self.optim = SGD([model.weight], lr=0.1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Composite, r"^Composite holds \.first \(SGD\), \.second \(Adam\).*attach a Regularizer to each"),
        (Sharded, r"^Sharded holds \.optim \(SGD\).*or add reg\.value\(\) to the loss"),
    ],
)
@pytest.mark.parametrize("penalty", [ts.L1(0.1), ts.L2(0.1)])
def test_several_are_named(make, said, penalty):
    model = problem()[0]
    outer = make(model)
    with pytest.raises(AttachmentError, match=said):
        ts.Regularizer(model, penalty).attach(outer)
    assert not any(outer._optimizer_step_post_hooks for outer in [outer, *_optimizers_in(outer)])


def _optimizers_in(outer):
    return [each for each in vars(outer).values() if isinstance(each, Optimizer)]


class Trainer:
    def __init__(self, optimizer):
        self.optimizer = optimizer

    def train(self):
        pass


@pytest.mark.parametrize("wrap", [lambda o: torch.optim.lr_scheduler.StepLR(o, 1), Trainer])
def test_what_is_no_optimizer_but_holds_one_is_refused_by_naming_it(wrap):
    model = problem()[0]
    with pytest.raises(InputError, match=r"a (StepLR|Trainer) given.*attach to the Adam that it holds as \.optim"):
        ts.Regularizer(model, ts.L1(0.1)).attach(wrap(Adam(model.parameters())))


class Slotted:
    __slots__ = ("empty", "inner")

    def __init__(self, inner):
        self.inner = inner


class Knowing(Trainer):
    """Holds itself, and the optimizer under two names."""

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.again, self.me, self.sizes = optimizer, self, [torch.zeros(2)] * 3

    @property
    def param_groups(self):
        raise RuntimeError("not yet")


HOLDERS = {
    "slot": (Slotted, ".inner"),
    "two deep": (lambda o: Trainer(Trainer(o)), ".optimizer.optimizer"),
    "three deep": (lambda o: Trainer(Slotted(Trainer(o))), ".optimizer.inner.optimizer"),
    "in a list of holders": (lambda o: Trainer([3, Slotted(o)]), ".optimizer[1].inner"),
    "a list of lists": (lambda o: Trainer([[o]]), ".optimizer[0][0]"),
    "a mapping": (lambda o: {"optimizer": o, "monitor": "loss"}, "['optimizer']"),
    "knows itself": (Knowing, ".optimizer"),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_the_optimizer_is_found_deep_in_what_is_none(name):
    make, place = HOLDERS[name]
    model = problem()[0]
    with pytest.raises(InputError) as raised:
        ts.Regularizer(model, ts.L1(0.1)).attach(make(Adam(model.parameters())))
    assert str(raised.value).endswith(f"attach to the Adam that it holds as {place}")


def test_a_wrapper_that_is_held_is_named_and_not_what_it_wraps():
    model = problem()[0]
    holder = Trainer([wrapper := SAM(model.parameters(), Adam), wrapper.base_optimizer])
    with pytest.raises(InputError, match=r"attach to the SAM that it holds as \.optimizer\[0\]$"):
        ts.Regularizer(model, ts.L1(0.1)).attach(holder)


class HelpedDuck(DuckWrapper):
    """Holds the inner one in a helper, which is no optimizer."""

    def __init__(self, optimizer):
        self.helper = Slotted(optimizer)

    optimizer = property(lambda self: self.helper.inner)


def test_a_wrapper_that_holds_its_base_in_another_object_is_followed_there():
    model, X, y = problem()
    inner = SGD(model.parameters(), lr=0.05)
    outer = HelpedDuck(inner)
    reg = ts.Regularizer(model, ts.L1(50.0)).attach(outer)
    for _ in range(20):
        closure_for(model, X, y)()
        outer.step()
    assert reg._attachments[0].optimizer is inner
    assert not model.weight.any()


@pytest.mark.parametrize("hold", [lambda both: Trainer(both), lambda both: Trainer(Slotted(tuple(both)))])
def test_several_in_what_is_no_optimizer_come_before_the_first_of_them(hold):
    model = problem()[0]
    with pytest.raises(
        AttachmentError, match=r"is no optimizer, and holds several: .*\[0\] \(Adam\), .*\[1\] \(SGD\)"
    ) as told:
        ts.Regularizer(model, ts.L1(0.1)).attach(hold([Adam([model.weight]), SGD([model.bias], lr=0.1)]))
    assert "attach a Regularizer to each" in str(told.value)


def test_another_models_optimizer_among_the_attributes_is_not_taken_for_the_inner_one():
    class Partnered(SGD):
        pass

    model = problem()[0]
    outer = Partnered(model.parameters(), lr=0.1)
    outer.partner = Adam(nn.Linear(2, 2).parameters())
    reg = ts.Regularizer(model, ts.L2(0.1)).attach(outer)
    assert reg._attachments[0].optimizer is outer


def test_an_optimizer_that_knows_its_wrapper_is_the_one():
    model = problem()[0]
    inner = Adam(model.parameters())
    inner.owner = AcceleratedOptimizer(inner)
    for given in (inner, inner.owner):
        with ts.Regularizer(model, ts.L1(0.1)).attach(given) as reg:
            assert reg._attachments[0].optimizer is inner


# --- attached to what is never stepped ---


def test_gradients_without_a_step_are_warned_of():
    model, X, y = problem()
    reg = ts.Regularizer(model, ts.L1(0.1)).attach(SGD(model.parameters(), lr=0.1))
    reg.summary()  # no gradients yet: warnings are errors here
    again = SGD(model.parameters(), lr=0.1)  # as a framework that makes its optimizer anew
    closure = closure_for(model, X, y)
    for _ in range(3):
        plain_step(again, closure)
    for look in (reg.summary, lambda: reg.certify(closure)):
        with pytest.warns(ObjectiveWarning, match="the SGD that this is attached to has not taken a step"):
            look()


def test_half_steps_of_an_optimizer_of_its_own_are_warned_of():
    model, X, y = problem()
    outer = po.BSAM(model.parameters(), num_data=40, lr=0.01, weight_decay=0)
    reg = ts.Regularizer(model, ts.L2(0.1)).attach(outer)
    closure_for(model, X, y)()
    outer.first_step()
    with pytest.warns(ObjectiveWarning, match="BSAM .* has not taken a step"):
        reg.summary()


# --- a failed attachment leaves nothing ---


def _traces(optimizer):
    """All hooks, and everything else that an optimizer holds."""
    return {name: copy.copy(value) for name, value in vars(optimizer).items()}


FAILING = ["register_step_pre_hook", "register_step_post_hook", "register_load_state_dict_post_hook"]


@pytest.mark.parametrize(
    ("method", "late", "error"), list(itertools.product(FAILING, [False, True], [RuntimeError, KeyboardInterrupt]))
)
def test_a_hook_that_cannot_be_registered_leaves_none(method, late, error):
    """``late``: it is there already when the registration fails."""
    model = problem()[0]
    optimizer = SGD(model.parameters(), lr=0.1)

    def fail(hook):
        if late:
            getattr(SGD, method)(optimizer, hook)
        raise error

    setattr(optimizer, method, fail)
    before = _traces(optimizer)
    reg = ts.Regularizer(model, {"weight": ts.L2(0.1), "bias": ts.L1(0.1)})  # one acts before, one after the step
    with pytest.raises(error):
        reg.attach(optimizer)
    assert _traces(optimizer) == before
    delattr(optimizer, method)
    reg.attach(optimizer)  # it is not attached: it can be
    reg.detach()
    assert not any(value for name, value in vars(optimizer).items() if "hooks" in name)


@pytest.mark.parametrize("stage", ["a warning as error", "a hook table is missing", "a prox without a step size"])
def test_attachments_that_fail_elsewhere_leave_none(stage):
    model = problem()[0]
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    if stage == "a hook table is missing":
        del optimizer._optimizer_load_state_dict_post_hooks
    if stage == "a prox without a step size":
        optimizer.param_groups[0]["momentum"] = 1.0
    before = _traces(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if stage == "a warning as error" else "ignore")
        with pytest.raises((ObjectiveWarning, AttachmentError)):
            ts.Regularizer(model, ts.L1(0.1)).attach(optimizer, method="prox")
    assert _traces(optimizer) == before


def test_a_failure_leaves_an_earlier_attachments_guard():
    model = problem()[0]
    optimizer = SGD(model.parameters(), lr=0.1)
    first = ts.Regularizer(model, {"weight": ts.L2(0.1)}).attach(optimizer)
    optimizer.register_load_state_dict_post_hook = lambda hook: 1 / 0
    with pytest.raises(ZeroDivisionError):
        ts.Regularizer(model, {"bias": ts.L2(0.1)}).attach(optimizer)
    del optimizer.register_load_state_dict_post_hook
    with pytest.warns(ObjectiveWarning, match="trains without the penalty"):
        copy.deepcopy(optimizer)
    first.detach()
    assert "__reduce_ex__" not in vars(optimizer)
