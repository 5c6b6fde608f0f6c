"""Rows that count by weights of their own: whole weights are repetitions, in any mean that is taken of a loss."""

import pytest
import torch
from torch import nn

from torchshrink.certifying.full_data import full_loss
from torchshrink.training import (
    WeightedLoss,
    batches,
    class_codes,
    class_hits,
    evaluate,
    part_loss,
    row_losses,
    row_weights,
    train_epoch,
)

COUNTS = torch.tensor([5, 1, 0, 1, 1, 2, 1, 9, 1, 1])


def case(name):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    loss, k = {
        "squares": (nn.MSELoss(), 1),
        "two columns": (nn.MSELoss(), 2),
        "codes": (nn.CrossEntropyLoss(), 3),
        "bits": (nn.BCEWithLogitsLoss(), 1),
    }[name]
    y = torch.randn(10, k, generator=generator, dtype=torch.float64)
    if name == "codes":
        y = torch.arange(10) % 3
    if name == "bits":
        y = (y > 0).double()
    torch.manual_seed(0)
    model = nn.Linear(3, k).double()
    weighted = torch.cat([y.reshape(10, -1).double(), COUNTS[:, None]], 1)
    return model, loss, X, y, weighted


@pytest.mark.parametrize("name", ["squares", "two columns", "codes", "bits"])
def test_every_mean_is_that_of_rows_that_are_repeated(name):
    model, loss, X, y, weighted = case(name)
    X_again, y_again = X.repeat_interleave(COUNTS, 0), y.repeat_interleave(COUNTS, 0)
    ours, theirs = evaluate(model, X, weighted, loss=WeightedLoss(loss)), evaluate(model, X_again, y_again, loss=loss)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
    if name == "codes":
        assert ours.accuracy == pytest.approx(theirs.accuracy)
    wanted = loss(model(X_again), y_again)
    for found in (WeightedLoss(loss)(model(X), weighted), part_loss(WeightedLoss(loss), weighted)(model(X), weighted)):
        torch.testing.assert_close(found, wanted)
    with full_loss(model, (X, weighted), WeightedLoss(loss)) as full:
        assert full() == pytest.approx(wanted.item(), rel=1e-12)
    unequal = evaluate(model, X, y, loss=loss).loss
    assert abs(unequal / theirs.loss - 1) > 0.01  # the weights do say something here


@pytest.mark.parametrize("name", ["squares", "two columns", "codes", "bits"])
def test_the_batches_of_an_epoch_add_up_to_the_weighted_mean(name):
    model, loss, X, _, weighted = case(name)
    whole = WeightedLoss(loss)(model(X), weighted)
    part, parts = part_loss(WeightedLoss(loss), weighted), batches(10, 3, seed=0, epoch=0)
    torch.testing.assert_close(sum(part(model(X[rows]), weighted[rows]) * len(rows) for rows in parts) / 10, whole)
    own = sum(WeightedLoss(loss)(model(X[rows]), weighted[rows]) * len(rows) for rows in parts) / 10
    assert abs((own / whole).item() - 1) > 0.01  # which the means of batches by themselves do not
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    stats = train_epoch(model, X, weighted, loss=WeightedLoss(loss), optimizer=still, batch_size=3, seed=0, epoch=0)
    assert stats.loss == pytest.approx(whole.item(), rel=1e-12)


def test_rows_are_judged_among_their_part():
    model, loss, X, _, weighted = case("squares")
    some = torch.tensor([0, 1, 2, 3])
    each = row_losses(WeightedLoss(loss), model(X[some]), weighted[some], among=weighted)
    torch.testing.assert_close(
        each, COUNTS[some] / COUNTS.double().mean() * row_losses(loss, model(X[some]), weighted[some, :1])
    )
    assert row_weights(WeightedLoss(loss), weighted).tolist() == COUNTS.tolist()
    assert row_weights(part_loss(WeightedLoss(loss), weighted), weighted).tolist() == [1.0] * 10


def test_what_counts_nothing_costs_nothing():
    nothing = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    assert float(WeightedLoss(nn.MSELoss())(torch.zeros(2, 1), nothing)) == 0.0


@pytest.mark.parametrize(
    ("loss", "y", "codes"),
    [
        (nn.CrossEntropyLoss(), torch.tensor([2, 0]), [2, 0]),
        (nn.CrossEntropyLoss(), torch.tensor([[2, 0]]), None),
        (nn.BCEWithLogitsLoss(), torch.tensor([1.0, 0.0]), [1, 0]),
        (nn.BCEWithLogitsLoss(), torch.tensor([[1.0], [0.0]]), [1, 0]),
        (nn.BCEWithLogitsLoss(), torch.tensor([0.5, 0.0]), None),
        (nn.BCEWithLogitsLoss(), torch.tensor([[1.0, 0.0]]), None),
        (nn.MSELoss(), torch.tensor([1.0, 0.0]), None),
        (WeightedLoss(nn.CrossEntropyLoss()), torch.tensor([[2.0, 0.5], [0.0, 1.0]]), [2, 0]),
        (WeightedLoss(nn.BCEWithLogitsLoss()), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), [1, 0]),
        (WeightedLoss(nn.MSELoss()), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), None),
    ],
)
def test_what_is_a_class(loss, y, codes):
    found = class_codes(loss, y)
    assert (None if found is None else found.tolist()) == codes


def test_hits_are_of_the_largest_output_or_of_the_sign():
    codes = torch.tensor([0, 1])
    one, several = torch.tensor([[[-1.0], [2.0]], [[1.0], [2.0]]]), torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert class_hits(one, codes).tolist() == [[True, True], [False, True]]
    assert class_hits(several, codes).tolist() == [[False, True]]
    assert class_hits(torch.tensor([-1.0, -1.0]), codes).tolist() == [[True, False]]
