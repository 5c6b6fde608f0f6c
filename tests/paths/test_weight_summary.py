"""What is kept of weights for a reader: closed cases, and the same from every engine."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import torchshrink as ts
from path_cases import Conv
from torchshrink.errors import InputError
from torchshrink.models import mlp
from torchshrink.paths.path_files import LOSSES, RESULT, losses_of
from torchshrink.paths.path_weights import MOST_KEPT, path_weights
from torchshrink.paths.training_result import TrainingResult
from torchshrink.paths.views import _weights
from torchshrink.paths.weight_summary import (
    BINS,
    FEW_INPUTS,
    Layer,
    Looked,
    epochs_shown,
    looked_at,
    sizes_counted,
    summaries,
    thinned,
)
from torchshrink.report.page import page
from torchshrink.support.storage import read_json, read_tensors, seal_of, write_json, write_tensors

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def run(build=lambda: mlp(4, 2, hidden=(8,)), data=(X, Y), penalty=ts.L1, **settings):
    given = {"strengths": [0.01, 0.1], "folds": 3, "repeats": 1, "progress": False} | settings
    return ts.path(build, data, penalty, **given)


def trained(weights):
    """A training that ended with this summary."""
    return TrainingResult(0.1, torch.ones(3, dtype=torch.float64), None, 5, weights=weights)


class TestSizes:
    def test_each_weight_is_in_one_bin(self):
        weights = torch.tensor([[0.0, -0.0, 1e-30, 1e-6, 1.1e-6, -1.0, 1.7, 1e3, float("nan")]])
        counts = sizes_counted(weights)[0]
        assert counts.sum() == 9
        assert counts[0] == 3  # two zeros, and what is no number
        assert counts[1] == 3  # what is smaller than the first bin is in it
        assert counts[1 + 4 * 6] == 2  # -1.0, and 1.7, which is less than 10^0.25 = 1.78
        assert counts[-1] == 1  # and what is larger, in the last

    def test_rows_are_counted_apart(self):
        counts = sizes_counted(torch.tensor([[0.0, 0.1], [0.0, 0.0]]))
        assert counts[:, 0].tolist() == [1, 2]
        assert counts.shape == (2, 1 + BINS)

    def test_few_epochs_are_all_kept_and_of_many_the_last(self):
        assert epochs_shown(3) == [1, 2, 3]
        assert len(epochs_shown(1000)) == 60
        assert epochs_shown(1000)[-1] == 1000
        assert thinned(list(range(1000)))[-1] == 999


class TestLookedAt:
    @pytest.mark.parametrize(
        ("model", "first", "kind"),
        [
            (nn.Linear(4, 1), "weight", "coefficients"),
            (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), "1.weight", "norms"),
            (mlp([0, 2, 0], 2, hidden=(5,)), "hidden1.weight", "norms"),
            (Conv(), "conv.weight", "units"),
            (nn.Embedding(5, 4), "weight", "units"),
        ],
    )
    def test_the_first_layer(self, model, first, kind):
        found = looked_at(model, (16,) if isinstance(model, Conv) else (4,), [])
        assert (found.first, found.kind) == (first, kind)

    def test_a_penalised_bias_is_looked_at_too(self):
        model = nn.Linear(4, 2)
        assert [layer.name for layer in looked_at(model, (4,), [model.bias]).layers] == ["weight", "bias"]
        assert [layer.name for layer in looked_at(model, (4,), []).layers] == ["weight"]


class TestEngines:
    @pytest.mark.parametrize("penalty", [ts.L1, ts.GroupLasso])
    def test_lanes_keep_what_single_trainings_keep(self, penalty):
        one, other = (run(penalty=penalty, epochs=4, engine=engine).weights for engine in ("sequential", "lanes"))
        assert one.to_dict() == other.to_dict()
        for name, tensor in one.tensors().items():
            torch.testing.assert_close(tensor, other.tensors()[name], rtol=1e-4, atol=1e-5)
        assert one.curves.shape == (3, 4)
        assert (one.curves[0, 1:] < one.curves[0, :-1]).all()

    def test_folds_that_differ_in_size_have_the_mean_over_rows(self):
        data = (X[:50], Y[:50])
        one, other = (
            run(data=data, batch_size=16, epochs=3, engine=engine).weights for engine in ("sequential", "lanes")
        )
        torch.testing.assert_close(one.curves, other.curves, rtol=1e-4, atol=1e-5)

    def test_optima_are_kept_with_their_signs(self):
        target = X @ torch.tensor([2.0, -1.0, 0.0, 0.5])
        result = run(lambda: nn.Linear(4, 1), (X, target[:, None]), strengths=[1e-6, 0.3])
        weights = result.weights
        assert weights.looked.kind == "coefficients"
        np.testing.assert_allclose(weights.inputs[1], [2.0, -1.0, 0.0, 0.5], atol=1e-3)
        assert weights.used[2].tolist()[2] == 0
        assert weights.curves.shape == (3, 0)
        assert weights.counts[2, 0, 0] == 3 * 4 - weights.used[2].sum()

    def test_units_are_rows_that_are_not_all_zero(self):
        weights = run(
            penalty=ts.GroupLasso, strengths=[1e-3, 10.0], epochs=3, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
        ).weights
        assert weights.units[0].tolist() == [8.0, 2.0]
        assert weights.units[2].tolist() == [0.0, 0.0]

    def test_a_journal_keeps_it(self, tmp_path):
        one = run(epochs=2, folder=tmp_path).weights
        other = run(epochs=2, folder=tmp_path).weights
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, other.tensors()[name])


class TestManyInputs:
    def test_the_largest_are_kept_and_zeros_told_from_what_is_not_known(self):
        weight = torch.zeros(1, 3, 10_000)
        weight[0, 0, :600] = torch.linspace(1, 2, 600)
        looked = Looked((Layer("w", (3, 10_000)),), "w", "norms")
        (sparse,) = summaries(looked, {"w": weight})
        (dense,) = summaries(looked, {"w": weight + 0.01})
        assert len(sparse.inputs) == FEW_INPUTS
        assert (int(sparse.reading), int(dense.reading)) == (600, 10_000)
        kept = path_weights(looked, (10_000,), 0, [[trained(sparse)], [trained(dense)]])
        assert kept.places.tolist() == list(range(600 - MOST_KEPT, 600))
        assert kept.inputs.isfinite().all()
        (other,) = summaries(looked, {"w": weight.flip(2)})
        mixed = path_weights(looked, (10_000,), 0, [[trained(sparse)], [trained(other)]])
        assert (mixed.inputs[1][mixed.places < 600] == 0).all()  # it has zeros among its largest: the rest is zero
        (few,) = summaries(looked, {"w": weight.flip(2) + 0.01})
        unknown = path_weights(looked, (10_000,), 0, [[trained(sparse)], [trained(few)]])
        assert unknown.inputs[1][unknown.places < 600].isnan().any()

    def test_a_hundred_strengths_ten_folds_and_as_many_thousand_weights(self):
        looked = Looked((Layer("w", (10, 10_000)),), "w", "norms")
        weight = torch.randn(1, 10, 10_000, generator=torch.Generator().manual_seed(0))
        begun = time.perf_counter()
        (each,) = summaries(looked, {"w": weight}, [[1.0 / (e + 1) for e in range(200)]])
        seconds = time.perf_counter() - begun
        assert seconds < 0.5
        begun = time.perf_counter()
        kept = path_weights(looked, (10_000,), 200, [[trained(each)] * 10] * 100)
        from report_cases import view

        shown = view(strengths=100, folds=10, epochs=200)
        part = replace(shown.parts[0], weights=_weights(kept))
        about = replace(shown.about, columns=tuple(f"gene {j}" for j in range(10_000)))
        made = page(replace(shown, parts=[part], about=about))
        assert time.perf_counter() - begun < 10
        assert len(made.encode()) < 3e6
        assert sum(tensor.nbytes for tensor in kept.tensors().values()) < 1e6


def test_each_goes_to_another_process_by_itself():
    looked = Looked((Layer("w", (1, 1000)),), "w", "coefficients")
    for each in summaries(looked, {"w": torch.zeros(200, 1, 1000)}):
        assert len(pickle.dumps(each)) < 20_000  # and not the 200 together


def test_a_training_that_diverged_is_left_out():
    looked = Looked((Layer("w", (1, 2)),), "w", "coefficients")
    (each,) = summaries(looked, {"w": torch.tensor([[[1.0, 0.0]]])})
    lost = replace(trained(None), diverged=3)
    kept = path_weights(looked, (2,), 5, [[trained(each), lost], [lost, lost]])
    assert kept.inputs[0].tolist() == [1.0, 0.0]
    assert kept.inputs[1].isnan().all()
    assert kept.used.tolist() == [[1, 0], [0, 0]]
    assert kept.counts[1].sum() == 0


def test_trainings_of_an_older_journal_have_none():
    looked = Looked((Layer("w", (1, 2)),), "w", "coefficients")
    assert path_weights(looked, (2,), 5, [[trained(None)]]) is None


class TestSaved:
    def test_comes_back(self, tmp_path):
        result = run(epochs=2, penalty={"a": ts.L1, "b": ts.L2})
        result.save(tmp_path)
        again = ts.load_path(tmp_path)
        for name in "ab":
            one, other = result.results[name].weights, again.results[name].weights
            assert one.to_dict() == other.to_dict()
            assert all(torch.equal(tensor, other.tensors()[key]) for key, tensor in one.tensors().items())
        result.report(tmp_path / "one.html")
        again.report(tmp_path / "other.html")
        assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("counts", lambda t: t[:, :, 1:]),
            ("inputs", lambda t: t[1:]),
            ("inputs", lambda t: t[:, 0]),
            ("places", lambda t: t + 1),
            ("places", lambda t: -1 - t),
            ("curves", lambda t: t[:, 1:]),
            ("used", lambda t: t[:, 1:]),
            ("reading", lambda t: t[1:]),
            ("epochs", lambda t: None),
        ],
    )
    def test_of_other_sizes_is_one_line(self, tmp_path, name, change):
        run(epochs=2).save(tmp_path)
        plain = read_json(tmp_path / RESULT, what="path")
        seal = seal_of(plain, what="path")
        tensors, _ = read_tensors(tmp_path / LOSSES, what=losses_of(seal))
        changed = change(tensors.pop(f"weights.{name}"))
        if changed is not None:
            tensors[f"weights.{name}"] = changed
        write_tensors(tmp_path / LOSSES, tensors, what=losses_of(seal))
        write_json(tmp_path / RESULT, plain, what="path")
        with pytest.raises(InputError, match=r"weights\."):
            ts.load_path(tmp_path)
