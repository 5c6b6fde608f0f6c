"""RegularizerCallback inside skorch's own nets."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from diabetes import ALPHA, OPTIMIZERS, STEPS, assert_is_the_lasso, data, large, linear, solution
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning

skorch = pytest.importorskip("skorch")

from skorch.callbacks import Checkpoint, GradientNormClipping, LoadInitState  # noqa: E402

from torchshrink.integrations.skorch import RegularizerCallback  # noqa: E402


class Half(nn.MSELoss):
    def forward(self, output, y):
        return super().forward(output, y) / 2


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = linear()

    def forward(self, X):
        return self.net(X)


def net(penalty=None, make="momentum", steps=STEPS, callbacks=(), **more):
    callback = more.pop("callback", RegularizerCallback(ts.L1(ALPHA) if penalty is None else penalty))
    settings = {"iterator_train": FullBatches, "train_split": None, "verbose": 0}
    return skorch.NeuralNetRegressor(
        Linear,
        criterion=Half,
        optimizer=OPTIMIZERS[make][0],
        max_epochs=steps // EPOCH,
        callbacks=[("regularizer", callback), *callbacks],
        **{**settings, **{f"optimizer__{name}": value for name, value in OPTIMIZERS[make][1].items()}, **more},
    )


EPOCH = 20  # steps, which are cheaper than epochs


class FullBatches:
    """In place of torch's DataLoader, which takes ten times as long to put a batch of 442 rows together."""

    def __init__(self, dataset, batch_size):
        self.batch = torch.from_numpy(dataset.X), torch.from_numpy(dataset.y)

    def __iter__(self):
        return iter([self.batch] * EPOCH)


def numpy():
    X, y = data()
    return X.numpy(), y.numpy()


def weight(fitted):
    return fitted.module_.net.weight


def half(step):
    return 0.5 if step < 30 else 1.0


CASES = {
    "L1": RegularizerCallback(ts.L1(ALPHA)),
    "latent": RegularizerCallback(ts.L1(ALPHA), method="latent"),
    "L2SP": RegularizerCallback(ts.L2SP(0.2)),
    "schedule": RegularizerCallback(ts.L1(ALPHA), scale=half),
}


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_ends_at_the_lasso_in_every_fit(make):
    fitted = net(make=make).fit(*numpy())
    assert_is_the_lasso(weight(fitted))
    assert fitted.history[-1]["torchshrink/sparsity"] == 0.5
    assert not fitted.optimizer_._optimizer_step_post_hooks
    first = weight(fitted)
    fitted.fit(*numpy())
    assert weight(fitted) is not first
    assert_is_the_lasso(weight(fitted))


@pytest.mark.parametrize("way", ["partial_fit", "pickle", "clone"])
@pytest.mark.parametrize("case", CASES)
def test_going_on_is_the_whole_run(case, way):
    whole = clone(net(steps=40, callback=CASES[case])).fit(*numpy())
    part = net(steps=20, callback=CASES[case]).fit(*numpy())
    if way == "pickle":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            part = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(part))))
    elif way == "clone":
        part = clone(part).partial_fit(*numpy())
    part.partial_fit(*numpy())
    assert torch.equal(weight(part), weight(whole))
    again = part.fit(*numpy()).partial_fit(*numpy())  # from the beginning: nothing is left of the first
    assert torch.equal(weight(again), weight(whole))


class Random(nn.Module):
    """Begins at random, as modules do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(10, 1).double()

    def forward(self, X):
        return self.net(X)


@pytest.mark.parametrize("way", ["load_params", "checkpoint", "last", "first"])
@pytest.mark.parametrize("case", CASES)
def test_what_has_been_saved_goes_on_as_the_whole_run(case, way, tmp_path):
    """Saved by hand, or by Checkpoint; read by hand, or by LoadInitState after or before the callback."""

    def made(*callbacks, steps=20):
        return net(steps=steps, callback=clone(CASES[case]), callbacks=callbacks).set_params(module=Random)

    files = {name: tmp_path / name for name in ("f_params", "f_optimizer", "f_history")}
    torch.manual_seed(1)
    whole = made(steps=40).fit(*numpy())
    torch.manual_seed(1)
    checkpoint = Checkpoint(dirname=tmp_path / "folder", monitor=None)
    part = made(("checkpoint", checkpoint)).fit(*numpy())
    part.save_params(**files)
    torch.manual_seed(2)
    if way == "load_params":
        resumed = made().initialize()
        resumed.load_params(**files)
        resumed.partial_fit(*numpy())
    elif way == "checkpoint":
        resumed = made().initialize()
        resumed.load_params(checkpoint=checkpoint)
        resumed.partial_fit(*numpy())
    else:
        resumed = made(("load", LoadInitState(checkpoint)))
        resumed.set_params(callbacks=resumed.callbacks[:: 1 if way == "last" else -1])
        resumed.fit(*numpy())
    assert not torch.equal(weight(part), weight(whole))
    assert torch.equal(weight(resumed), weight(whole))


def test_a_net_whose_fit_has_failed_pickles_in_silence_and_goes_on():
    made = net(callback=RegularizerCallback(ts.L1(ALPHA)), callbacks=[("fails", Fails())])
    with pytest.raises(ZeroDivisionError):
        made.fit(*numpy())
    copy = pickle.loads(pickle.dumps(made))
    copy.set_params(callbacks__fails__on=False)
    assert_is_the_lasso(weight(copy.partial_fit(*numpy())))


def test_under_autocast_the_penalty_is_exact_in_float32():
    class Cast(skorch.NeuralNetRegressor):
        def infer(self, *args, **kwargs):
            with torch.autocast("cpu", torch.bfloat16):
                return super().infer(*args, **kwargs)

    X, y = (each.astype("float32") for each in numpy())
    whole = net(steps=20)
    whole.__class__ = Cast
    whole.set_params(module=Single).fit(X, y)
    plain = Single()
    optimizer = OPTIMIZERS["momentum"][0](plain.parameters(), **OPTIMIZERS["momentum"][1])
    ts.Regularizer(plain, ts.L1(ALPHA)).attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = plain(torch.from_numpy(X))
        Half()(output, torch.from_numpy(y)).backward()
        optimizer.step()
    assert weight(whole).dtype == torch.float32
    assert torch.equal(weight(whole), plain.net.weight)


class Fails(skorch.callbacks.Callback):
    def __init__(self, on=True):
        self.on = on

    def on_batch_end(self, net, training, **kwargs):
        if self.on:
            raise ZeroDivisionError


class Single(Linear):
    def __init__(self):
        super().__init__()
        self.float()


def test_a_grid_over_penalties_in_two_processes():
    grid = {"callbacks__regularizer__penalty": [ts.L1(ALPHA), ts.L1(40.0)]}
    search = GridSearchCV(net(), grid, cv=2, n_jobs=2, scoring="neg_mean_squared_error").fit(*numpy())
    assert search.best_params_["callbacks__regularizer__penalty"] == ts.L1(ALPHA)
    assert_is_the_lasso(weight(search.best_estimator_))
    assert search.cv_results_["mean_test_score"][1] < 1.1 * search.cv_results_["mean_test_score"][0]


def test_a_grid_over_strengths_alone():
    grid = {"callbacks__regularizer__strength": [ALPHA, 40.0]}
    search = GridSearchCV(net(ts.L1(1.0)), grid, cv=2, scoring="neg_mean_squared_error").fit(*numpy())
    assert search.best_params_ == {"callbacks__regularizer__strength": ALPHA}
    assert_is_the_lasso(weight(search.best_estimator_))
    with pytest.raises(InputError, match=r"strength=1\.0: of one penalty"):
        net({"net.weight": ts.L1(1.0)}).set_params(callbacks__regularizer__strength=1.0)


def test_a_setting_that_is_changed_after_a_fit_holds_in_the_next():
    fitted = net(ts.L1(40.0), steps=20).fit(*numpy())
    fitted.set_params(callbacks__regularizer__penalty=ts.L1(ALPHA), max_epochs=STEPS // EPOCH)
    assert_is_the_lasso(weight(fitted.fit(*numpy())))
    fitted.set_params(callbacks__regularizer__penalty=ts.L1(2.0))
    fitted.partial_fit(*numpy())
    assert_is_the_lasso(weight(fitted), alpha=2.0)
    fitted.set_params(callbacks__regularizer__scale=2.5)
    fitted.partial_fit(*numpy())
    assert_is_the_lasso(weight(fitted))


def test_what_is_changed_about_another_callback_leaves_it_alone():
    scores = ("clip", GradientNormClipping(1e9))
    whole = net(callback=CASES["L2SP"], steps=40).fit(*numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        part = net(callback=CASES["L2SP"], steps=20, callbacks=[scores]).fit(*numpy())
        part.set_params(callbacks__clip__gradient_clip_value=1e8)
        part.partial_fit(*numpy())
    assert torch.equal(weight(part), weight(whole))


def test_clipping_is_told_at_the_start_and_at_the_end():
    clip = ("clip", GradientNormClipping(1.0))
    for order in (1, -1):
        made = net(ts.L1(1.0))
        made.set_params(callbacks=[*made.callbacks, clip][::order])
        with pytest.warns(ObjectiveWarning) as told:
            made.fit(numpy()[0], large() * numpy()[1])
        first, last = [str(each.message) for each in told]
        assert first.startswith("gradients are clipped at 1 (GradientNormClipping)")
        assert last.startswith(
            f"gradients were clipped at 1 in {STEPS} of {STEPS} steps, and still when training ended"
        )
    assert (int((weight(made) == 0).sum()), int((solution(1.0, large()) == 0).sum())) == (10, 4)


def test_a_net_whose_optimizer_lacks_the_weights_is_an_error():
    made = net()
    made.set_params(optimizer=lambda groups, **more: torch.optim.SGD(groups[0]["params"][1:], lr=0.1))
    with pytest.raises(AttachmentError, match="no optimizer of this training"):
        made.fit(*numpy())


def test_a_fit_that_fails_leaves_what_the_next_one_needs():
    class Fails(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise ZeroDivisionError

    made = net(steps=100, callbacks=[("fails", Fails())])
    with pytest.raises(ZeroDivisionError):
        made.fit(*numpy())
    made.partial_fit(*numpy())
    whole = net(steps=160).fit(*numpy())
    assert np.array_equal(weight(made).detach(), weight(whole).detach())
