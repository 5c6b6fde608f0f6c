"""The lanes engine against the plain one."""

import itertools
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import torchshrink as ts
from path_cases import Conv, spec_for
from torchshrink.errors import CannotStackError, ObjectiveWarning
from torchshrink.models import Rescale, mlp
from torchshrink.paths.engines import stack_penalties
from torchshrink.paths.engines.linear_chain import dense_fits
from torchshrink.paths.engines.sequential import train_each
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.penalty_family import families
from torchshrink.paths.training_result import TrainingKey
from torchshrink.regularizer.attachment import blocks
from torchshrink.regularizer.selection import ALL, WEIGHTS

ROWS = 50  # in 3 folds: 33, 33 and 34 to train on
STRENGTHS = (0.0, 1e-3, 1e-2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x.view(-1, 4, 4))[0][:, -1])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(x.view(-1, 4, 4)).flatten(1))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, codes):
        return self.head(self.embedding(codes).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.first.weight.requires_grad_(False)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.first(x))))


def frozen_chain():
    model = mlp(16, 3, hidden=(6, 5))
    model.hidden1.weight.requires_grad_(False)
    model.hidden2.bias.requires_grad_(False)
    return model


def tied_chain():
    first, second = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Sequential(second, nn.GELU()), nn.Linear(16, 3))


ARCHITECTURES = {
    "mlp": lambda: mlp(16, 3, hidden=(8, 6)),
    "convolution and batch normalisation": Conv,
    "lstm": Recurrent,
    "transformer": Attending,
    "embedding": Embedded,
}
OTHERS = {"tied": Tied, "frozen": Frozen, "frozen chain": frozen_chain, "tied chain": tied_chain}
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.01),
}
OTHER_OPTIMIZERS = [
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.NAdam,
    partial(torch.optim.Adam, amsgrad=True, fused=True),
]
MOMENTUM, DECAYING = partial(torch.optim.SGD, lr=0.05, momentum=0.9), partial(torch.optim.Adam, weight_decay=0.01)


def data(build, *, numbers=False, rows=ROWS):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(rows, 16, generator=generator, dtype=torch.float64)
    y = (X[:, 0] + X[:, 1] * X[:, 2]) if numbers else X[:, :3].argmax(1)
    return (X.mul(3).round().long().remainder(7) if build is Embedded else X), y


def spec_of(build, penalty=ts.L1, *, epochs=3, optimizer=OPTIMIZERS["adam"], rows=ROWS, numbers=False, **settings):
    tuned = families(penalty)
    fixed = {"batch_size": 6, "loss": None, "seed": 3, "device": None, "on": WEIGHTS, "method": "auto"}
    spec = spec_for(
        lambda: build().double(),
        data(build, numbers=numbers, rows=rows),
        tuned,
        epochs=epochs,
        optimizer=optimizer,
        **(fixed | settings),
    )
    return spec, make_folds(spec.y, 3, seed=0), tuned[0]


def stacks_of(spec, folds, family, strengths=STRENGTHS):
    """One stack per size of fold, as a model whose rows depend on each other needs them."""
    sizes = sorted({len(fold.train) for fold in folds})
    parts = [{k: fold for k, fold in enumerate(folds) if len(fold.train) == size} for size in sizes]
    return [Stack(spec, part, family, strengths) for part in parts]


def largest_difference(spec, folds, family, stacks, strengths=STRENGTHS):
    """Over every weight and buffer of every fold and strength."""
    worst = 0.0
    for stack in stacks:
        for f, (number, fold) in enumerate(stack.folds.items()):
            for s, strength in enumerate(strengths):
                model, _ = spec.train(family.make(strength), spec.X[fold.train], spec.y[fold.train], part=number)
                plain = dict(model.named_parameters()) | dict(model.named_buffers())
                for name, stacked in (stack.parameters | stack.own).items():
                    worst = max(worst, (stacked[f, s] - plain[name]).detach().abs().max().item())
    return worst


# Each architecture with each optimizer, and each penalty with several of both.
PENALTIES = itertools.cycle([ts.L1, ts.GroupLasso, ts.L2])
PAIRS = [(*pair, next(PENALTIES)) for pair in itertools.product(ARCHITECTURES, OPTIMIZERS)]


class TestAgreement:
    """After dozens of steps, in float64."""

    @pytest.mark.parametrize(("architecture", "optimizer", "penalty"), PAIRS)
    @pytest.mark.filterwarnings("ignore:.*rows of an embedding")  # which both engines treat alike
    def test_every_weight(self, architecture, optimizer, penalty):
        build = ARCHITECTURES[architecture]
        spec, folds, family = spec_of(build, penalty, optimizer=OPTIMIZERS[optimizer], epochs=9)
        stack, _ = stacks_of(spec, folds, family, (0.0, 1e-2))  # the two folds of 33 rows: 6 batches
        assert len(stack.folds) == 2
        assert not stack.train().any()
        assert largest_difference(spec, folds, family, [stack], (0.0, 1e-2)) < 1e-8

    @pytest.mark.parametrize("block", [blocks.BLOCK, 24])
    @pytest.mark.parametrize(
        "penalty", [ts.L1, ts.ElasticNet(1, 1), ts.GroupLasso(1, dim=1), ts.SparseGroupLasso(1, 1), ts.MCP]
    )
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_large_layers_whose_lanes_go_one_by_one(self, monkeypatch, optimizer, penalty, block):
        monkeypatch.setattr(stack_penalties, "ONE_BY_ONE", 1)
        monkeypatch.setattr(blocks, "BLOCK", block)
        spec, folds, family = spec_of(ARCHITECTURES["mlp"], penalty, optimizer=OPTIMIZERS[optimizer])
        stack, _ = stacks_of(spec, folds, family)
        stack.train()
        assert largest_difference(spec, folds, family, [stack]) < 1e-8

    @pytest.mark.parametrize(
        ("model", "penalty"),
        [
            *((model, ts.L1) for model in OTHERS),
            *((model, ts.MCP) for model in ("tied", "frozen chain")),
            *((model, ts.ElasticNet(1, 1)) for model in ("frozen", "tied chain")),
        ],
    )
    def test_tied_and_frozen(self, model, penalty):
        spec, folds, family = spec_of(OTHERS[model], penalty)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.parametrize("penalty", [ts.L1, ts.ElasticNet(1, 1), ts.GroupLasso, ts.MCP, ts.SCAD])
    @pytest.mark.parametrize(
        "optimizer",
        [torch.optim.Adam, partial(torch.optim.RMSprop, lr=1e-3), torch.optim.NAdam, torch.optim.Adagrad],
    )
    def test_weights_without_a_gradient_and_penalties_that_are_not_convex(self, optimizer, penalty):
        def build():  # what a head of 0 lets no gradient through to
            model = mlp(16, 3, hidden=(8,))
            nn.init.zeros_(model.output.weight)
            return model

        spec, folds, family = spec_of(build, penalty, optimizer=optimizer, epochs=1)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
            name = next(name for name in stack.parameters if name.startswith("hidden"))
            assert float((stack.parameters[name] == 0).double().mean()) < 0.2  # an unlimited prox leaves none
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.parametrize(
        ("method", "optimizer"),
        [
            *itertools.product(["prox", "latent"], OTHER_OPTIMIZERS),
            *zip(["loss", "gradient"], OTHER_OPTIMIZERS[-2:], strict=True),  # which ask no optimizer for its step
        ],
    )
    def test_methods_and_other_optimizers(self, method, optimizer):
        spec, folds, family = spec_of(partial(mlp, 16, 3), ts.L1, optimizer=optimizer, method=method)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.filterwarnings("ignore:.*weight_decay:torchshrink.errors.ObjectiveWarning")
    @pytest.mark.parametrize(
        ("penalty", "optimizer"),
        [
            (ts.ElasticNet(1, 1), MOMENTUM),
            (ts.GroupLasso, DECAYING),
            (ts.MCP, MOMENTUM),
            (ts.SCAD, DECAYING),
            (ts.NuclearNorm, MOMENTUM),
            (ts.NuclearNorm, DECAYING),
        ],
    )
    def test_latent_weights(self, penalty, optimizer):
        spec, folds, family = spec_of(partial(mlp, 16, 3), penalty, optimizer=optimizer, method="latent")
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
    @pytest.mark.parametrize("zero", [False, True])
    def test_constraints_by_latent_weights(self, optimizer, zero):
        def build():
            model = mlp(16, 3, hidden=(8, 6))
            if zero:  # hidden1 and hidden2 have no gradient in the first step, and begin in the second
                with torch.no_grad():
                    model.output.weight.zero_()
            return model

        def made(s):
            return {"hidden1.weight": ts.L0Ball(0.3), "hidden2.weight": ts.L1(s), "output.weight": ts.NonNegative()}

        spec, folds, family = spec_of(build, made, optimizer=optimizer, method="latent", epochs=5)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
            assert float((stack.parameters["hidden1.weight"] == 0).double().mean()) > 0.69
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.filterwarnings("ignore:.*not known to be convex:torchshrink.errors.ObjectiveWarning")
    def test_latent_weights_of_unknown_convexity_are_left_to_the_plain_engine(self):
        class Own(ts.L1):
            convex = False

        spec, folds, family = spec_of(partial(mlp, 16, 3), Own, method="latent")
        with pytest.raises(CannotStackError, match="not known to be convex"):
            Stack(spec, {0: folds[0]}, family, STRENGTHS)

    @pytest.mark.parametrize("factor", [0.0, 1e-3])
    @pytest.mark.parametrize(
        "optimizer", [partial(torch.optim.SGD, lr=1e-3, momentum=0.9), partial(torch.optim.RMSprop, lr=0.02)]
    )
    def test_each_lane_changes_its_rho_as_a_model_alone_does(self, optimizer, factor):
        def build():
            model = nn.Linear(16, 3)
            with torch.no_grad():
                model.weight.mul_(factor)
            return model

        spec, folds, family = spec_of(build, ts.L1, optimizer=optimizer, method="latent", epochs=5)
        stacks = stacks_of(spec, folds, family)
        changes = 0
        for stack in stacks:
            rhos = []
            stack.train(lambda *_, of=stack, seen=rhos: seen.append([each.rho for each in of._latent._offset.values()]))
            changes += sum(
                int((one != other).sum())
                for before, after in itertools.pairwise(rhos)
                for one, other in zip(before, after, strict=True)
            )
        assert changes
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.parametrize(
        ("build", "loss"),
        [
            (lambda: mlp(16, 1, hidden=(8,), regression=True), None),
            (lambda: nn.Sequential(nn.Linear(16, 1), nn.Flatten(0)), None),
            (lambda: nn.Sequential(nn.Linear(16, 4), nn.LayerNorm(4), nn.Linear(4, 1), Rescale()), nn.HuberLoss()),
            (lambda: mlp(16, 1, regression=True), lambda output, y: (output - y).abs().pow(1.5).mean()),
        ],
        ids=["mlp", "linear", "huber", "callable"],
    )
    def test_numbers(self, build, loss):
        spec, folds, family = spec_of(build, numbers=True, loss=loss)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.parametrize(
        "loss",
        [
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)),
            nn.CrossEntropyLoss(label_smoothing=0.1),
            nn.CrossEntropyLoss(ignore_index=1),
            lambda output, y: functional.cross_entropy(output - output.mean(1, keepdim=True) ** 2, y),
        ],
        ids=["weighted", "smoothed", "ignoring", "callable"],
    )
    def test_losses_of_many_kinds(self, loss):
        spec, folds, family = spec_of(ARCHITECTURES["mlp"], loss=loss, epochs=4)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    def test_every_parameter_penalised(self):
        spec, folds, family = spec_of(ARCHITECTURES["mlp"], ts.L2, on=ALL)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    @pytest.mark.parametrize(
        "penalty",
        [
            lambda s: {"hidden1.weight": ts.L1(s), "output.weight": ts.L2(10 * s)},
            lambda s: {"hidden1.weight": ts.L1(s), "hidden2.*": ts.MaxNorm(0.5)},
            lambda s: {"hidden1.weight": ts.L1(s), "hidden2.*": ts.L0Ball(0.3), "output.weight": ts.NonNegative()},
            lambda s: {"hidden1.weight": ts.LogSum(s), "hidden2.*": ts.NM(2, 4), "output.weight": ts.UnitNorm()},
            lambda s: ts.L1(0.01),
        ],
        ids=["two", "one of them fixed", "two of them fixed", "patterns", "fixed"],
    )
    def test_rules(self, penalty):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec, folds, family = spec_of(ARCHITECTURES["mlp"], penalty)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8

    def test_a_schedule_of_its_own_has_no_lanes(self):
        def penalty(s):
            return {"hidden1.weight": ts.L1(s), "hidden2.*": ts.L0Ball(ts.Gradual(0.3, steps=5))}

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec, folds, family = spec_of(ARCHITECTURES["mlp"], penalty)
        with pytest.raises(
            CannotStackError, match=r"hidden2\.weight: L0Ball\(Gradual.*\) follows a schedule of its own"
        ):
            stacks_of(spec, folds, family)


class TestUnevenFolds:
    def test_a_chain_takes_them_in_one_stack(self):
        spec, folds, family = spec_of(ARCHITECTURES["mlp"])
        stack = Stack(spec, dict(enumerate(folds)), family, STRENGTHS)
        stack.train()
        assert largest_difference(spec, folds, family, [stack]) < 1e-8

    def test_what_rows_share_is_never_filled_up(self):
        spec, folds, family = spec_of(Conv)
        with pytest.raises(CannotStackError, match="differ in size"):
            Stack(spec, dict(enumerate(folds)), family, STRENGTHS)

    def test_held_out_rows_never_reach_a_lane(self):
        def weights(wild):
            spec, folds, family = spec_of(ARCHITECTURES["mlp"], epochs=2)
            spec.X[folds[1].validation] = wild
            stack = Stack(spec, dict(enumerate(folds)), family, STRENGTHS)
            stack.train()
            return torch.cat([p[1].flatten() for p in stack.parameters.values()])

        assert torch.equal(weights(0.0), weights(1e6))


class TestOutcomes:
    @pytest.mark.parametrize(
        ("build", "numbers"),
        [(ARCHITECTURES["mlp"], False), (Conv, False), (lambda: mlp(16, 1, regression=True), True)],
        ids=["mlp", "convolution", "numbers"],
    )
    def test_are_those_of_the_plain_engine(self, build, numbers):
        spec, folds, family = spec_of(build, numbers=numbers, epochs=3)
        found = {}
        for stack in stacks_of(spec, folds, family):
            for fold, strength, outcome in stack.results(stack.train()):
                found[TrainingKey(0, strength, fold)] = outcome
        assert len(found) == 9
        for key, plain in train_each(spec, folds, [family], found):
            assert found[key].train_loss == pytest.approx(plain.train_loss, abs=1e-10)
            torch.testing.assert_close(found[key].row_losses, plain.row_losses, rtol=1e-9, atol=1e-10)
            assert found[key].accuracy == (None if numbers else pytest.approx(plain.accuracy))
            assert found[key].nonzero == plain.nonzero
            assert found[key].diverged is None


class TestSinglePrecision:
    def test_batch_normalisation_differs_by_rounding_alone(self):
        """Five epochs of Adam. A bias before the normalisation would not do: its gradient is 0 but for rounding, which
        Adam scales up to whole steps, so that two trainings differ in it, and a little in the running means."""

        def build():
            model = Conv()
            model.conv = nn.Conv2d(1, 3, 3, bias=False)
            return model

        (family,) = families(ts.L2)
        X, y = data(build)
        spec = spec_for(
            build, (X.float(), y), [family], epochs=5, batch_size=6, loss=None, optimizer=OPTIMIZERS["adam"], seed=3,
            device=None, on=WEIGHTS, method="auto",
        )  # fmt: skip
        stack = stacks_of(spec, make_folds(spec.y, 3, seed=0), family)[0]
        for fold, strength, outcome in stack.results(stack.train()):
            ((_, plain),) = train_each(spec, make_folds(spec.y, 3, seed=0), [family], [TrainingKey(0, strength, fold)])
            torch.testing.assert_close(outcome.row_losses, plain.row_losses, rtol=1e-4, atol=1e-5)


class TestDivergence:
    """SGD on L2 diverges where lr · 2λ > 2, and only there."""

    def outcomes(self, strengths):
        spec, folds, family = spec_of(
            lambda: mlp(16, 3, hidden=(4,)), ts.L2, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=12
        )
        stack = Stack(spec, {0: folds[0], 1: folds[1]}, family, strengths)
        return {(fold, s): outcome for fold, s, outcome in stack.results(stack.train())}, (spec, folds, family)

    def test_of_512_lanes_3_leave_509_untouched(self):
        sound = [1e-4 * 1.02**k for k in range(253)]
        all_lanes, (spec, folds, family) = self.outcomes([*sound, 1e4, 2e4, 1e30])
        alone, _ = self.outcomes(sound)
        assert len(all_lanes) == 512
        for key, outcome in alone.items():
            assert outcome.diverged is None
            torch.testing.assert_close(all_lanes[key].row_losses, outcome.row_losses, rtol=1e-10, atol=1e-12)
        for strength in (1e4, 2e4, 1e30):
            ((_, plain),) = train_each(spec, folds, [family], [TrainingKey(0, strength, 1)])
            assert all_lanes[1, strength].diverged == plain.diverged
            assert all_lanes[1, strength].row_losses.isnan().all()

    def test_a_lane_of_any_model(self):
        spec, folds, family = spec_of(Conv, ts.L2, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=12)
        ends = []
        for strengths in ([1e-3, 1e6], [1e-3]):
            stack = Stack(spec, {0: folds[0]}, family, strengths)
            diverged = stack.train()
            ends.append(torch.cat([p[:, 0].flatten() for p in stack.parameters.values()]))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)
        assert not diverged.any()

    @pytest.mark.parametrize("build", [ARCHITECTURES["mlp"], Conv], ids=["chain", "any"])
    def test_the_latent_weights_of_the_lanes_that_stay(self, build):
        def epoch(stack):
            made = list(stack._batches(0))
            for (rows, batch), (_, weights) in zip(stack._read([rows for rows, _ in made]), made, strict=True):
                stack.step(rows, weights, batch)

        spec, folds, family = spec_of(build, ts.L1, optimizer=partial(torch.optim.Adam, lr=0.02), method="latent")
        ends = []
        for leaves in (False, True):
            stack = Stack(spec, {0: folds[0]}, family, (1e-3, 1e-2, 0.1))
            epoch(stack)
            if leaves:
                stack.keep([0, 2])
            epoch(stack)
            ends.append([p[:, [0, -1]].flatten() for p in stack.parameters.values()])
        for all_stayed, one_left in zip(*ends, strict=True):
            torch.testing.assert_close(all_stayed, one_left, rtol=1e-8, atol=1e-10)
        assert any((p == 0).any() for p in ends[0])


class TestDropout:
    @pytest.mark.parametrize(
        "build",
        [
            lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
            lambda: nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 3)),
        ],
        ids=["chain", "any"],
    )
    def test_repeats_with_the_seed_and_differs_by_lane(self, build):
        def trained(seed):
            spec, folds, family = spec_of(build, lambda s: ts.L1(1e-9 + s * 0), seed=seed, epochs=3)
            stack = Stack(spec, {0: folds[0], 1: folds[1]}, family, (1.0, 2.0, 3.0))
            torch.rand(1)  # the caller's generator has no say
            stack.train()
            return torch.cat([p.flatten(2) for p in stack.parameters.values()], dim=2)

        one = trained(0)
        assert torch.equal(one, trained(0))
        assert not torch.equal(one, trained(1))
        lanes = one.flatten(0, 1)
        assert all((lanes[i] - lanes[j]).abs().max() > 1e-3 for i in range(6) for j in range(i))

    def test_the_callers_generator_is_left_alone(self):
        spec, folds, family = spec_of(ARCHITECTURES["mlp"], epochs=1)
        before = torch.get_rng_state()
        Stack(spec, {0: folds[0]}, family, STRENGTHS).train()
        assert torch.equal(before, torch.get_rng_state())


class TestRefusals:
    def stacked(self, build=ARCHITECTURES["mlp"], penalty=ts.L1, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ObjectiveWarning)
            spec, folds, family = spec_of(build, penalty, **settings)
        return Stack(spec, {0: folds[0]}, family, STRENGTHS)

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"optimizer": torch.optim.Adafactor}, "Adafactor is not known"),
            ({"optimizer": torch.optim.LBFGS, "penalty": ts.L2}, "LBFGS is not known"),
            ({"optimizer": torch.optim.ASGD}, "needs a look before each step"),
            ({"optimizer": partial(torch.optim.SGD, lr=0.1, maximize=True)}, "maximize"),
            ({"method": "decoupled"}, "decoupled"),
            ({"penalty": ts.L2SP, "method": "prox"}, "remembers the initial weights"),
            ({"penalty": lambda s: {"output.weight" if s else "hidden1.weight": ts.L1(s)}}, "other parameters"),
            ({"penalty": lambda s: ts.ElasticNet(1.0, s)}, "more than strength"),
        ],
    )
    def test_say_why(self, settings, reason):
        with pytest.raises(CannotStackError, match=reason) as raised:
            self.stacked(**settings)
        assert "\n" not in str(raised.value)

    def test_hooks_of_the_optimizer(self):
        def hooked(parameters):
            optimizer = torch.optim.SGD(parameters, lr=0.1)
            optimizer.register_step_pre_hook(lambda *_: None)
            return optimizer

        with pytest.raises(CannotStackError, match="hooks into the step"):
            self.stacked(optimizer=hooked)


class TestDense:
    @pytest.mark.parametrize(
        ("build", "fits"),
        [
            (ARCHITECTURES["mlp"], True),
            (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(), nn.Linear(4, 3)), True),
            (tied_chain, True),
            (Tied, False),
            (lambda: nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), False),
            (lambda: nn.Sequential(nn.Linear(16, 8), nn.Softmax(1), nn.Linear(8, 3)), False),
        ],
    )
    def test_of_what_it_is(self, build, fits):
        spec, _, _ = spec_of(build)
        assert dense_fits(spec, spec.fresh(), 3) is fits

    def test_not_of_a_layer_with_a_hook(self):
        def build():
            model = mlp(16, 3)
            model.hidden1.register_forward_hook(lambda module, args, output: output * 2)
            return model

        spec, folds, family = spec_of(build)
        assert not dense_fits(spec, spec.fresh(), 3)
        stacks = stacks_of(spec, folds, family)
        for stack in stacks:
            stack.train()
        assert largest_difference(spec, folds, family, stacks) < 1e-8
