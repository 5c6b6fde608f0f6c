"""What holds of the callback of every framework alike: Lightning, Transformers, skorch."""

import contextlib
import logging
import warnings

import pytest
import torch
from diabetes import ALPHA, STEPS, assert_is_the_lasso

import torchshrink as ts
from torchshrink.errors import InputError, ObjectiveWarning

pl = pytest.importorskip("lightning.pytorch")
transformers = pytest.importorskip("transformers")
skorch = pytest.importorskip("skorch")
pytest.importorskip("accelerate")

import test_lightning  # noqa: E402
import test_skorch  # noqa: E402
import test_transformers  # noqa: E402
from skorch.callbacks import LoadInitState, TrainEndCheckpoint  # noqa: E402

from torchshrink.integrations.callbacks import Settings  # noqa: E402
from torchshrink.integrations.lightning import RegularizerCallback as InLightning  # noqa: E402
from torchshrink.integrations.session import Session  # noqa: E402
from torchshrink.integrations.skorch import RegularizerCallback as InSkorch  # noqa: E402
from torchshrink.integrations.transformers import RegularizerCallback as InTransformers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*(num_workers|LeafSpec|log_every_n_steps|tensorboard|Be aware)")


def prepared(model, start, frozen):
    torch.nn.init.constant_(model.net.weight, start)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return model


class Unfreezes:
    """Unfreezes the model's weight once some steps have been taken, in each framework's callback of its own."""

    class Lightning(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.net.weight.requires_grad_(True)

    class Transformers(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                kwargs["model"].net.weight.requires_grad_(True)

    class Skorch(skorch.callbacks.Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 2:
                net.module_.net.weight.requires_grad_(True)


def in_lightning(callbacks, steps, folder, *, resume=False, start=0.0, frozen=(), make="momentum"):
    model = prepared(test_lightning.Linear(make), start, frozen)
    at = folder / "end.ckpt"
    run = test_lightning.trainer(None, steps, callbacks=callbacks)
    run.fit(model, test_lightning.batches(), ckpt_path=at if resume else None)
    run.save_checkpoint(at)
    return model, dict(run.callback_metrics)


def in_transformers(callbacks, steps, folder, *, resume=False, start=0.0, frozen=(), make="momentum"):
    model = prepared(test_transformers.Linear(), start, frozen)
    saving = {"save_strategy": "steps", "save_steps": steps, "logging_strategy": "steps", "logging_steps": 5}
    run = test_transformers.trainer(callbacks, folder, model, make=make, steps=steps, **saving)
    run.train(resume_from_checkpoint=resume)
    return model, run.state.log_history[-2]


class Module(test_skorch.Linear):
    def __init__(self, start, frozen):
        super().__init__()
        prepared(self, start, frozen)


def in_skorch(callbacks, steps, folder, *, resume=False, start=0.0, frozen=(), make="momentum"):
    end = TrainEndCheckpoint(dirname=folder)
    state = [("end", end), *([("load", LoadInitState(end))] if resume else [])]
    more = [(f"callback{i}", each) for i, each in enumerate(callbacks)]
    net = test_skorch.net(make=make, steps=steps - (steps // 2 if resume else 0), callback=None, callbacks=more + state)
    net.set_params(module=Module, module__start=start, module__frozen=frozen)
    net.set_params(callbacks=[each for each in net.callbacks if each[1] is not None])
    net.fit(*test_skorch.numpy())
    return net.module_, net.history[-1]


FRAMEWORKS = {
    "lightning": (InLightning, in_lightning, Unfreezes.Lightning),
    "transformers": (InTransformers, in_transformers, Unfreezes.Transformers),
    "skorch": (InSkorch, in_skorch, Unfreezes.Skorch),
}
every_framework = pytest.mark.parametrize(("callback", "train", "unfreezes"), [*FRAMEWORKS.values()], ids=[*FRAMEWORKS])


def regularizer(callback):
    return callback.regularizer_ if isinstance(callback, InSkorch) else callback.regularizer


def half(step):
    return 0.5 if step < 30 else 1.0


@every_framework
def test_two_callbacks_are_kept_apart_when_a_run_resumes(callback, train, unfreezes, tmp_path):
    def two():
        return [callback({"net.weight": ts.L2SP(0.2)}, scale=half), callback(ts.L2SP(0.3), on="net.bias")]

    whole, logged = train(two(), 40, tmp_path / "whole", start=3.0)
    train(two(), 20, tmp_path / "part", start=3.0)
    resumed, _ = train(two(), 40, tmp_path / "part", resume=True, start=7.0)  # which the loaded weights replace
    assert torch.equal(resumed.net.weight, whole.net.weight)
    assert torch.equal(resumed.net.bias, whole.net.bias)
    names = {"torchshrink/penalty", "torchshrink/sparsity", "torchshrink-2/penalty", "torchshrink-2/sparsity"}
    assert names <= {*logged}
    weight = whole.net.weight.detach()
    assert float(logged["torchshrink/penalty"]) == pytest.approx(0.2 * float((weight - 3.0).square().sum()))


MATTERS = {
    "L1": ({"penalty": ts.L1(ALPHA)}, None),
    "L2SP": ({"penalty": ts.L2SP(0.2)}, r"L2SP\(0.2\) would refer to the weights of now"),
    "schedule": ({"penalty": ts.L1(ALPHA), "scale": half}, "its schedule would begin again at step 0"),
    "gradual": ({"penalty": ts.L0Ball(ts.Gradual(0.5, steps=30))}, "its schedule would begin again"),
    "latent": ({"penalty": ts.L1(ALPHA), "method": "latent"}, "latent weights would begin again"),
}


@every_framework
def test_a_run_that_was_saved_without_the_callback_resumes_where_that_makes_no_difference(
    callback, train, unfreezes, tmp_path
):
    for case, (arguments, why) in MATTERS.items():
        folder = tmp_path / case
        folder.mkdir()
        train([], 20, folder)
        if why is None:
            expected = contextlib.nullcontext()
        elif callback is InSkorch:
            expected = pytest.warns(ObjectiveWarning, match=why)
        else:
            expected = pytest.raises(InputError, match=why)
        mine = callback(**arguments)
        with expected:
            train([mine], 40, folder, resume=True)
        assert regularizer(mine).methods == {}


@every_framework
def test_the_scale_of_now_is_the_one_in_force(callback, train, unfreezes, tmp_path):
    train([callback(ts.L1(ALPHA), scale=0.5)], 20, tmp_path)
    for scale, expected in ((2.0, 2.0), (None, 1.0)):
        mine = callback(ts.L1(2 * ALPHA), scale=scale)  # another strength is no other rule
        train([mine], 40, tmp_path, resume=True)
        assert regularizer(mine).scale == expected
        assert regularizer(mine).steps >= 40


@every_framework
@pytest.mark.parametrize("order", [1, -1])
def test_weights_that_are_unfrozen_are_penalised_from_then_on(callback, train, unfreezes, order, tmp_path):
    mine = callback(ts.L1(ALPHA), on="all")
    both = [mine, unfreezes()][::order]
    model, _ = train(both, 2 * STEPS, tmp_path, frozen=("net.weight",))
    assert_is_the_lasso(model.net.weight)
    assert {term.name for term in regularizer(mine).terms} == {"net.weight", "net.bias"}
    assert regularizer(mine).steps == 2 * STEPS


@every_framework
def test_a_frozen_start_is_what_an_anchor_stays_at(callback, train, unfreezes, tmp_path):
    mine = callback(ts.L2SP(0.2), on="all")
    train([mine, unfreezes()], 40, tmp_path, start=3.0, frozen=("net.weight",))
    anchors = {name: float(each["anchor"].mean()) for name, each in regularizer(mine).state_dict()["bound"].items()}
    assert anchors == {"net.weight": 3.0, "net.bias": 0.0}


@every_framework
def test_warnings_point_to_the_line_that_trains_and_callbacks_can_be_read(callback, train, unfreezes, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train([callback(ts.L1(1.0)), callback(ts.L1(2.0), on="net.*")], 20, tmp_path)
    told = [each for each in caught if issubclass(each.category, ObjectiveWarning)]
    assert "two proxes in a row" in str(told[0].message)
    assert told[0].filename == __file__
    assert repr(callback(ts.L1(0.1))) == "RegularizerCallback(L1(0.1))"
    assert repr(callback(ts.L1(0.1), on=["a.*"], scale=2.0)) == "RegularizerCallback(L1(0.1), on=['a.*'], scale=2.0)"


@every_framework
def test_it_takes_the_same_words_as_a_regularizer(callback, train, unfreezes, tmp_path):
    for on, count in (("weights", 1), ("all", 2), (ts.WEIGHTS, 1), (ts.ALL, 2), (torch.nn.Linear, 1), ("net.*", 1)):
        mine = callback(ts.L1(ALPHA), on=on)
        train([mine], 20, tmp_path)
        assert len(regularizer(mine).terms) == count
    with pytest.raises(InputError, match=r"rule 'net\.\*' penalises nothing: 'net.weight' is frozen"):
        train([callback(ts.L1(ALPHA), on="net.*")], 20, tmp_path, frozen=("net.weight",))


def test_a_state_of_other_rules_is_refused():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = Settings(ts.L2SP(0.1), "all", "auto", None)
    session = Session(settings, settings.bound(model), [optimizer], run=0)
    state = session.state()
    session.take_up(state)
    for terms in ({"weight": "L1", "bias": "L2SP"}, {"weight": "L2SP", "head": "L2SP"}):
        with pytest.raises(InputError, match=r"the saved state is of other rules or another model: (weight|head) was"):
            session.take_up({**state, "terms": terms})
    session.end()
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_state_dict_post_hooks


class Breaks(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("penalty", [ts.L1(ALPHA), ts.L2(0.2)], ids=str)
def test_what_an_interrupted_training_has_left_does_not_act_in_the_next(penalty, tmp_path):
    def trained(breaking):
        model = test_transformers.Linear()
        optimizer = test_transformers.MAKE["momentum"](model.parameters())
        for callbacks in ([InTransformers(penalty), Breaks()],) * breaking:
            with contextlib.suppress(KeyboardInterrupt):
                test_transformers.trainer(callbacks, tmp_path, model, optimizer=optimizer, steps=10).train()
        mine = InTransformers(penalty)
        test_transformers.trainer(mine, tmp_path, model, optimizer=optimizer, steps=STEPS).train()
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_state_dict_post_hooks
        return model.net.weight.detach()

    assert torch.allclose(trained(2), trained(0), rtol=0, atol=1e-8)


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
