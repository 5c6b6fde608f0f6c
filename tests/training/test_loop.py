import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import torchshrink as ts
from torchshrink.certifying.full_data import full_loss
from torchshrink.errors import DivergenceError, InputError
from torchshrink.support.randomness import mix_seed, rng_state, seeded
from torchshrink.training import (
    batches,
    check_fit,
    default_loss,
    evaluate,
    evaluating,
    row_losses,
    train_epoch,
)
from torchshrink.training.checkpoint import load_checkpoint, save_checkpoint

IGNORING = nn.CrossEntropyLoss(ignore_index=255)


def weighted(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A mean that is weighted, in a way that cannot be seen from outside."""
    return functional.cross_entropy(output, target, weight=torch.tensor([1.0, 30.0]))


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 5, generator=generator), torch.randint(0, 3, (30,), generator=generator)


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


class TestBatches:
    def test_every_row_once_in_an_order_of_its_own(self):
        first, second = (torch.cat(batches(100, 16, seed=3, epoch=epoch)) for epoch in (0, 1))
        assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
        assert not torch.equal(first, second)

    def test_depend_on_seed_and_epoch_alone(self):
        torch.manual_seed(1)
        once = batches(50, 8, seed=7, epoch=2)
        torch.manual_seed(2)
        again = batches(50, 8, seed=7, epoch=2)
        assert all(map(torch.equal, once, again))
        assert not torch.equal(once[0], batches(50, 8, seed=8, epoch=2)[0])

    @pytest.mark.parametrize(
        ("rows", "size", "sizes"), [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (3, 1, [1, 2])]
    )
    def test_nothing_is_dropped_and_nothing_left_alone(self, rows, size, sizes):
        assert [len(batch) for batch in batches(rows, size, seed=0, epoch=0)] == sizes


class TestRowLosses:
    @pytest.mark.parametrize(
        "loss",
        [
            nn.CrossEntropyLoss(),
            nn.CrossEntropyLoss(label_smoothing=0.1),
            functional.cross_entropy,
            lambda o, t: functional.nll_loss(o.log_softmax(1), t),
        ],
    )
    def test_of_classes(self, loss, rows):
        output = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
        each = row_losses(loss, output, rows[1])
        one_by_one = torch.stack([loss(output[i : i + 1], rows[1][i : i + 1]) for i in range(30)])
        torch.testing.assert_close(each, one_by_one)
        torch.testing.assert_close(each.mean(), loss(output, rows[1]))

    @pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), functional.mse_loss])
    @pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 4, 2)])
    def test_of_numbers(self, loss, shape):
        output, target = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
        each = row_losses(loss, output, target)
        assert each.shape == (30,)
        torch.testing.assert_close(each.mean(), loss(output, target))

    def test_batchmean_sums_within_a_row(self):
        loss = nn.KLDivLoss(reduction="batchmean")
        output, target = torch.randn(6, 4).log_softmax(1), torch.rand(6, 4).softmax(1)
        torch.testing.assert_close(row_losses(loss, output, target).mean(), loss(output, target))

    @pytest.mark.parametrize("shape", [(30,), (30, 2)])
    @pytest.mark.parametrize("ignored", [-100, 1])
    @pytest.mark.parametrize("weight", [None, [1.0, 2.0, 30.0]])
    def test_a_mean_weighted_by_class_is_the_mean_of_its_rows(self, weight, ignored, shape):
        weight = None if weight is None else torch.tensor(weight)
        output, target = torch.randn(30, 3, *shape[1:]), torch.randint(0, 3, shape)
        for loss in (
            nn.CrossEntropyLoss(weight=weight, ignore_index=ignored),
            nn.CrossEntropyLoss(weight=weight, ignore_index=ignored, label_smoothing=0.1),
            nn.NLLLoss(weight=weight, ignore_index=ignored),
        ):
            whole = loss(output, target)
            torch.testing.assert_close(row_losses(loss, output, target).mean(), whole)
            parts = [row_losses(loss, output[rows], target[rows], among=target) for rows in (slice(9), slice(9, 30))]
            torch.testing.assert_close(torch.cat(parts).mean(), whole)

    def test_what_vmap_cannot_take_is_looped_over(self):
        def branching(output, target):
            error = (output - target).square().mean()
            return error if error > 1 else 2 * error

        output = torch.tensor([0.5, 3.0])
        torch.testing.assert_close(row_losses(branching, output, torch.zeros(2)), torch.tensor([0.5, 9.0]))

    def test_the_callers_loss_keeps_its_reduction(self, rows):
        loss = nn.CrossEntropyLoss()
        row_losses(loss, torch.zeros(30, 3), rows[1])
        assert loss.reduction == "mean"


class TestEvaluate:
    def test_is_the_mean_over_rows_in_evaluation_mode(self, rows):
        model = network(dropout=0.5)
        seen = evaluate(model, *rows, loss=nn.CrossEntropyLoss())
        model.eval()
        output = model(rows[0])
        assert seen.loss == pytest.approx(functional.cross_entropy(output, rows[1]).item(), rel=1e-6)
        assert seen.row_losses.dtype == torch.float64
        assert seen.accuracy == pytest.approx((output.argmax(1) == rows[1]).double().mean().item())

    def test_many_rows_give_the_same_as_few(self):
        model = nn.Linear(2, 3).double()
        X, y = torch.randn(10_000, 2, dtype=torch.float64), torch.randint(0, 3, (10_000,))
        seen = evaluate(model, X, y, loss=nn.CrossEntropyLoss())
        assert seen.loss == pytest.approx(functional.cross_entropy(model(X), y).item(), rel=1e-12)
        assert seen.accuracy == pytest.approx((model(X).argmax(1) == y).double().mean().item())

    def test_class_weights_are_those_of_the_whole_and_not_of_a_part(self):
        model = nn.Linear(2, 2).double()
        X, y = torch.randn(5000, 2, dtype=torch.float64), (torch.arange(5000) > 4000).long()
        loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 30.0], dtype=torch.float64))
        assert evaluate(model, X, y, loss=loss).loss == pytest.approx(loss(model(X), y).item(), rel=1e-12)
        with full_loss(model, (X, y), loss) as full:
            value, (gradient, _) = full.gradient(list(model.parameters()))
        assert value == pytest.approx(loss(model(X), y).item(), rel=1e-12)
        (wanted,) = torch.autograd.grad(loss(model(X), y), [model.weight])
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-15)

    def test_numbers_have_no_accuracy(self):
        assert evaluate(nn.Linear(2, 1), torch.randn(4, 2), torch.randn(4, 1), loss=nn.MSELoss()).accuracy is None

    def test_every_module_goes_back_to_its_mode(self):
        model = network().train()
        model[1].eval()  # frozen statistics
        with evaluating(model):
            assert not any(module.training for module in model.modules())
        assert model.training
        assert not model[1].training
        assert model[0].training


class TestTrainEpoch:
    def test_is_the_tutorials_loop(self, rows):
        X, y = rows
        ours, theirs = network(), network()
        ours_sgd, theirs_sgd = (torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (ours, theirs))
        seen, right = [], 0
        for epoch in range(3):
            stats = train_epoch(
                ours, X, y, loss=nn.CrossEntropyLoss(), optimizer=ours_sgd, batch_size=8, seed=1, epoch=epoch
            )
        for epoch in range(3):
            seen, right = [], 0
            for batch in batches(30, 8, seed=1, epoch=epoch):
                theirs_sgd.zero_grad()
                output = theirs(X[batch])
                loss = functional.cross_entropy(output, y[batch])
                loss.backward()
                theirs_sgd.step()
                seen.append(loss.item() * len(batch))
                right += int((output.argmax(1) == y[batch]).sum())
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
        assert stats.loss == pytest.approx(sum(seen) / 30)
        assert stats.accuracy == right / 30

    def test_a_regularizer_given_is_added_to_the_loss_and_not_to_its_report(self, rows):
        X, y = rows
        made = []
        for penalty in (None, ts.L2(0.05)):
            model = nn.Linear(5, 3).double()
            with torch.no_grad():
                model.weight.fill_(0.5)
                model.bias.zero_()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1 if penalty is None else 0)
            reg = None if penalty is None else ts.Regularizer(model, penalty, on=ts.ALL)
            for epoch in range(5):
                stats = train_epoch(
                    model,
                    X.double(),
                    y,
                    loss=nn.CrossEntropyLoss(),
                    optimizer=optimizer,
                    regularizer=reg,
                    batch_size=8,
                    seed=0,
                    epoch=epoch,
                )
            made.append((model.weight.detach(), stats.loss))
        torch.testing.assert_close(made[0][0], made[1][0], rtol=1e-12, atol=1e-14)
        assert made[0][1] == pytest.approx(made[1][1], rel=1e-12)

    def test_divergence_names_the_epoch(self, rows):
        model = nn.Linear(5, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e8)
        reached = []

        def train():
            for epoch in range(20):
                reached.append(epoch)
                target = rows[1][:, None].float()
                setting = {"loss": nn.MSELoss(), "optimizer": optimizer, "batch_size": 10, "seed": 0}
                train_epoch(model, rows[0], target, **setting, epoch=epoch)

        with pytest.raises(DivergenceError, match=r"in epoch \d+: lower the learning rate") as raised:
            train()
        assert raised.value.epoch == reached[-1] < 19


class TestCheckFit:
    @pytest.mark.parametrize(
        ("model", "X", "y", "loss", "message"),
        [
            (nn.Linear(4, 3), torch.zeros(5, 3), torch.arange(5) % 3, None, r"does not take rows of shape \(3,\)"),
            (nn.Linear(3, 2), torch.zeros(5, 3), torch.arange(5) % 3, None, r"\(3,\) expected"),
            (nn.Linear(3, 1), torch.zeros(5, 3), torch.zeros(5), None, r"shape \(1,\) for a row whose target"),
            (nn.Linear(3, 1), torch.zeros(5, 3), torch.zeros(5), functional.mse_loss, r"shape \(1,\) for a row whose"),
            (nn.Linear(3, 2), torch.zeros(5, 3), torch.zeros(5), nn.L1Loss(), r"shape \(2,\) for a row whose target"),
            (nn.Linear(3, 1), torch.zeros(5, 3), torch.arange(5), None, r"give y\.float\(\) if y is a number"),
            (nn.Linear(3, 2), torch.zeros(5, 3), torch.arange(5) % 2, weighted, "is not the mean of its rows' losses"),
            (nn.Linear(3, 2), torch.zeros(5, 3).long(), torch.arange(5) % 2, None, r"give X\.float\(\)"),
            (nn.Linear(3, 2), torch.full((5, 3), math.nan), torch.arange(5) % 2, None, "missing values"),
            (nn.LSTM(3, 2), torch.zeros(5, 4, 3), torch.zeros(5, 2), None, "returns tuple"),
            (nn.Linear(3, 2), torch.zeros(5, 3), torch.arange(5) % 2, nn.CrossEntropyLoss(reduction="sum"), "a mean"),
            (nn.Linear(3, 2), torch.zeros(5, 3), torch.arange(5) % 2, lambda o, t: o.sum(1) - t, "one number"),
            (nn.Linear(3, 2), torch.zeros(5, 3), torch.arange(5) % 2, nn.BCELoss(), "the loss does not take"),
        ],
    )
    def test_says_what_does_not_fit_in_one_line(self, model, X, y, loss, message):
        with pytest.raises(InputError, match=message) as raised:
            check_fit(model, X, y, loss=loss or default_loss(y))
        assert "\n" not in str(raised.value)

    def test_a_proof_refuses_it_too(self):
        model, data = nn.Linear(3, 1), (torch.randn(5, 3), torch.randn(5))
        with pytest.raises(InputError, match="for a row whose target has shape"):
            ts.certify(model, data, ts.Regularizer(model, ts.L1(0.1)), loss=functional.mse_loss)

    def test_an_ignored_code_is_no_class(self):
        check_fit(nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 255, 1, 0]), loss=IGNORING)

    def test_a_callable_may_take_several_numbers_for_a_target(self):
        def normal(output, target):
            return functional.gaussian_nll_loss(output[:, 0], target, output[:, 1].exp())

        check_fit(nn.Linear(3, 2), torch.randn(5, 3), torch.randn(5), loss=normal)

    def test_takes_what_fits_and_leaves_no_trace(self, rows):
        model = network()
        before = [tensor.clone() for tensor in model.state_dict().values()]
        check_fit(model, *rows, loss=nn.CrossEntropyLoss())
        assert model.training
        assert all(map(torch.equal, before, model.state_dict().values()))


class TestRandomness:
    def test_seeded_leaves_every_generator_as_it_was(self):
        import random

        import numpy as np

        before = rng_state()
        with seeded(5):
            inside = torch.rand(2), np.random.rand(), random.random()
        with seeded(5):
            again = torch.rand(2), np.random.rand(), random.random()
        after = rng_state()
        assert torch.equal(inside[0], again[0])
        assert inside[1:] == again[1:]
        assert torch.equal(before["torch"], after["torch"])
        assert torch.equal(before["numpy"][1], after["numpy"][1])
        assert before["python"] == after["python"]

    def test_mixed_seeds_differ(self):
        assert len({mix_seed(seed, part) for seed in range(50) for part in range(50)}) == 2500


class TestCheckpoint:
    @pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD, partial(torch.optim.Adam, fused=True)])
    def test_going_on_equals_never_having_stopped(self, make, rows, tmp_path):
        def setting():
            model = network(dropout=0.3)
            optimizer = make(model.parameters(), lr=0.05)
            return model, optimizer, ts.Regularizer(model, ts.L1(0.01)).attach(optimizer)

        def run(model, optimizer, epochs):
            for epoch in epochs:
                train_epoch(
                    model, *rows, loss=nn.CrossEntropyLoss(), optimizer=optimizer, batch_size=8, seed=0, epoch=epoch
                )

        model, optimizer, reg = setting()
        run(model, optimizer, range(3))
        path = tmp_path / "checkpoint.safetensors"
        save_checkpoint(path, model=model, optimizer=optimizer, regularizer=reg, progress={"epoch": 3, "lr": 0.1})
        first_bytes = path.read_bytes()
        save_checkpoint(path, model=model, optimizer=optimizer, regularizer=reg, progress={"epoch": 3, "lr": 0.1})
        assert path.read_bytes() == first_bytes
        run(model, optimizer, range(3, 6))

        resumed, its_optimizer, its_reg = setting()
        torch.manual_seed(99)
        progress = load_checkpoint(path, model=resumed, optimizer=its_optimizer, regularizer=its_reg)
        assert progress == {"epoch": 3, "lr": 0.1}
        run(resumed, its_optimizer, range(3, 6))
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), name
        assert reg.steps == its_reg.steps == 24

    def test_another_model_is_refused_in_one_line(self, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        model = nn.Linear(2, 2)
        save_checkpoint(path, model=model, optimizer=torch.optim.SGD(model.parameters()), progress={})
        other = nn.Linear(3, 2)
        with pytest.raises(InputError, match="does not fit this model") as raised:
            load_checkpoint(path, model=other, optimizer=torch.optim.SGD(other.parameters()))
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("keep", [0, 5, 100, 2000])
    def test_a_truncated_file_is_refused_in_one_line(self, tmp_path, keep):
        path = tmp_path / "checkpoint.safetensors"
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters())
        save_checkpoint(path, model=model, optimizer=optimizer, progress={})
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(InputError) as raised:
            load_checkpoint(path, model=model, optimizer=optimizer)
        assert "\n" not in str(raised.value)
