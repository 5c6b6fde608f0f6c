"""How large the points of a path are after shrinking, and what is refitted and shrunk there."""

from functools import partial

import pytest
import torch
from torch import nn

import torchshrink as ts
from path_cases import iris, plain
from torchshrink.errors import InputError
from torchshrink.models import Preprocess, mlp
from torchshrink.paths import load_path
from torchshrink.paths.engines.sequential import train_one
from torchshrink.paths.folds import make_splits
from torchshrink.paths.penalty_family import family
from torchshrink.paths.training_result import TrainingKey
from torchshrink.paths.zero_pattern import apply_pattern, tensors_of, zero_pattern

ADAM = partial(torch.optim.Adam, lr=0.02)
STRENGTHS = (0.01, 0.03, 0.2)
SETTINGS = {"strengths": STRENGTHS, "folds": 2, "repeats": 1, "epochs": 8, "optimizer": ADAM, "progress": False}


def wide():
    return mlp(4, 3, hidden=(12, 8))


def convolutional():
    return nn.Sequential(
        Preprocess([0] * 16), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def tiled():
    X, y = iris()
    return torch.tensor(X).repeat(1, 4), torch.tensor(y)


@pytest.fixture(scope="module")
def result():
    return ts.path(wide, iris(), ts.GroupLasso, engine="lanes", **SETTINGS)


@pytest.mark.parametrize(("build", "data"), [(wide, iris), (convolutional, tiled)], ids=["mlp", "convolutional"])
def test_a_point_s_size_is_that_of_its_folds_models_shrunk(build, data):
    result = ts.path(build, data(), ts.GroupLasso, engine="sequential", **SETTINGS | {"strengths": (0.05,)})
    spec, tuned = result.source.spec, family(ts.GroupLasso)
    folds = make_splits(spec.y, 2, repeats=1, seed=0).first
    assert len(set(result.sizes)) == 2
    for point, size in zip(result.points, result.sizes, strict=True):
        counted = []
        for number, fold in enumerate(folds):
            _, model = train_one(spec, fold, tuned, TrainingKey(0, point.strength, number))
            counted.append(ts.shrink(model, spec.X[:4]).parameters[1])
        assert size == sum(counted) / 2


def test_both_engines_say_the_same(result):
    other = ts.path(wide, iris(), ts.GroupLasso, engine="sequential", **SETTINGS)
    assert other.sizes == result.sizes


def test_at_picks_the_largest_that_fits(result):
    whole = 12 * 5 + 8 * 13 + 3 * 9
    assert result.settings["parameters"] == whole
    size_of = {id(point): size for point, size in zip(result.points, result.sizes, strict=True)}
    for wanted in (min(result.sizes), 150, whole):
        most = max(size for size in result.sizes if size <= wanted)
        found = result.at(parameters=int(wanted))
        alike = [point for point in result.points if size_of[id(point)] == most]
        assert found in alike
        assert found.validation_loss == min(point.validation_loss for point in alike)
    assert result.at(parameters=0.5) is result.at(parameters=whole // 2)
    with pytest.raises(InputError, match=r"^parameters=1: no strength .* parameters: give more"):
        result.at(parameters=1)
    with pytest.raises(InputError, match="expected one of the two"):
        result.at(parameters=1, nonzero=1)
    with pytest.raises(InputError, match=r"^parameters=-1: expected how many parameters"):
        result.at(parameters=-1)


def test_sizes_are_saved_and_loaded(result, tmp_path):
    result.save(tmp_path)
    loaded = load_path(tmp_path)
    assert loaded.sizes == result.sizes
    assert loaded.at(parameters=0.5).strength == result.at(parameters=0.5).strength
    result.report(tmp_path / "report.html")
    assert "parameters after shrinking" in (tmp_path / "report.html").read_text()


def test_without_groups_there_are_none_and_it_is_said(tmp_path):
    result = ts.path(partial(mlp, 4, 3, hidden=()), iris(), ts.L1, **SETTINGS | {"epochs": 1})
    assert result.sizes is None
    with pytest.raises(InputError, match="l1 has no groups"):
        result.at(parameters=10)
    result.save(tmp_path)
    with pytest.raises(InputError, match="saved without sizes"):
        load_path(tmp_path).at(parameters=10)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = torch.relu(self.a(x))
        return self.b(y) if y.sum() > -1 else self.b(-y)


def test_what_cannot_be_traced_has_none_and_is_saved_all_the_same(tmp_path):
    settings = SETTINGS | {"epochs": 1, "engine": "sequential"}
    result = ts.path(Branching, iris(), ts.GroupLasso, **settings)
    assert result.sizes is None
    with pytest.raises(InputError, match="cannot trace Branching"):
        result.at(parameters=10)
    result.save(tmp_path)
    assert load_path(tmp_path).sizes is None


def test_a_journal_keeps_what_sizes_need(tmp_path):
    settings = SETTINGS | {"folder": tmp_path, "epochs": 2}
    first = ts.path(wide, iris(), ts.GroupLasso, **settings)
    again = ts.path(wide, iris(), ts.GroupLasso, **settings)
    assert again.sizes == first.sizes is not None
    assert plain(again) == plain(first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_pattern_gives_its_zeros_and_vectors_back(dtype):
    torch.manual_seed(0)
    build = lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5)).to(dtype)  # noqa: E731
    trained, fresh = build(), build()
    with torch.no_grad():
        trained[0].weight[1] = 0
        trained[3].weight[:, ::2] = 0
        fresh[3].weight[0] = 0  # initial zeros are no zeros of the pattern
        trained[1].running_mean += 3
    apply_pattern(fresh, zero_pattern(tensors_of(trained)))
    for (name, wanted), own in zip(tensors_of(trained).items(), tensors_of(fresh).values(), strict=True):
        assert torch.equal(own != 0, wanted != 0), name
        assert wanted.ndim > 1 or torch.equal(own, wanted), name


class TestRefit:
    def test_shrunk_it_has_the_outputs_of_the_refit(self, result):
        point = result.at(parameters=0.6)
        shrunk, certificate = result.refit(point, shrink=True)
        model, same = result.refit(point)
        X = torch.tensor(iris()[0])
        torch.testing.assert_close(shrunk.model(X), model(X), rtol=1e-5, atol=1e-6)
        assert certificate.distance == same.distance
        assert shrunk.parameters[1] < shrunk.parameters[0] == result.settings["parameters"]
        assert shrunk.difference < 1e-12
        assert not shrunk.model.training

    def test_of_a_comparison_too(self):
        both = ts.path(wide, iris(), [ts.GroupLasso, ts.L1], **SETTINGS | {"epochs": 1})
        shrunk, _ = both.refit(0.2, shrink=True)
        assert shrunk.parameters[0] == 12 * 5 + 8 * 13 + 3 * 9

    def test_the_small_model_has_the_same_certificate(self):
        """The same F on the same data: a group keeps its factor √p though it lost zeros, which `weights` says."""
        X, y = (torch.tensor(each) for each in iris())
        X = ((X - X.mean(0)) / X.std(0)).double()
        torch.manual_seed(1)
        large = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        penalty = {"4.weight": ts.L2(1e-3), "*.weight": ts.GroupLasso(0.01)}
        reg = ts.Regularizer(large, penalty)
        optimizer = torch.optim.Adam(large.parameters(), lr=0.02)
        with reg.attach(optimizer):
            for _ in range(300):
                optimizer.zero_grad()
                nn.functional.cross_entropy(large(X), y).backward()
                optimizer.step()
        loss = nn.CrossEntropyLoss()
        ts.polish(large, (X, y), reg, loss=loss)
        shrunk = ts.shrink(large.eval(), X[:5])
        small = shrunk.model
        assert 0 < small[0].out_features < 12
        assert small[2].in_features < 12
        factor = {
            name: (before[1] / after[1]) ** 0.5
            for name, (before, after) in shrunk.kept.items()
            if name.endswith("weight")
        }
        of_small = ts.Regularizer(
            small,
            {"4.weight": ts.L2(1e-3)}
            | {name: ts.GroupLasso(0.01, weights=factor.get(name, 1.0)) for name in ("0.weight", "2.weight")},
        )
        before, after = (ts.certify(m, (X, y), r, loss=loss) for m, r in ((large, reg), (small, of_small)))
        assert before.ok()
        assert after.ok()
        assert after.objective == pytest.approx(before.objective, rel=1e-9)
        assert after.distance <= before.distance + 1e-9  # of the coordinates that stayed
        # without that factor it is another F
        plain_reg = ts.Regularizer(small, penalty)
        assert ts.certify(small, (X, y), plain_reg, loss=loss).objective < before.objective - 1e-4
