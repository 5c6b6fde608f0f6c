"""RegularizerCallback inside Lightning's own Trainer."""

import pytest
import torch
from diabetes import ALPHA, MAKE, STEPS, assert_is_the_lasso, data, large, linear, loss, solution

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning, SelectionWarning

pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import BaseFinetuning, EMAWeightAveraging, LearningRateFinder  # noqa: E402
from lightning.pytorch.cli import LightningCLI  # noqa: E402

from torchshrink.integrations.lightning import RegularizerCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*(num_workers|has no logging|LeafSpec|log_every_n_steps|tensorboard)")

EPOCH = 10  # steps


class Linear(pl.LightningModule):
    """Least squares; ``factor`` multiplies the targets."""

    def __init__(self, make="momentum", factor=1.0, penalty=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = linear()
        self.make, self.factor = make, factor

    def training_step(self, batch):
        X, y = batch
        return loss(self.net(X), self.factor * y)

    def configure_optimizers(self):
        return MAKE[self.make](self.parameters())


def batches(parts=1, steps=EPOCH):
    X, y = data()
    pieces = list(zip(X.chunk(parts), y.chunk(parts), strict=True))
    return torch.utils.data.DataLoader(pieces * steps, batch_size=None)


def trainer(callback, steps=STEPS, **more):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    callbacks = [*([callback] if callback else []), *more.pop("callbacks", [])]
    return pl.Trainer(
        max_steps=steps, callbacks=callbacks, accelerator="cpu", enable_model_summary=False, **{**quiet, **more}
    )


def fitted(callback, model=None, *, parts=1, checkpoint=None, **more):
    model = Linear() if model is None else model
    run = trainer(callback, **more)
    run.fit(model, batches(parts), ckpt_path=checkpoint)
    return model, run


@pytest.mark.parametrize("make", MAKE)
def test_it_ends_at_the_lasso(make):
    callback = RegularizerCallback(ts.L1(ALPHA))
    model, run = fitted(callback, Linear(make))
    assert_is_the_lasso(model.net.weight)
    assert float(run.callback_metrics["torchshrink/sparsity"]) == 0.5
    assert float(run.callback_metrics["torchshrink/penalty"]) == pytest.approx(
        ALPHA * float(model.net.weight.detach().abs().sum())
    )
    assert callback.regularizer.methods == {}  # detached


def half(step):
    return 0.5 if step < 30 else 1.0


CASES = {"L1": (ts.L1(ALPHA), None), "L2SP": (ts.L2SP(0.2), None), "schedule": (ts.L1(ALPHA), half)}


@pytest.mark.parametrize(("method", "make"), [("auto", "Adam"), ("latent", "momentum")])
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_whole_run(case, make, method, tmp_path):
    penalty, scale = CASES[case]

    def callback():
        return RegularizerCallback(penalty, scale=scale, method=method)

    whole, _ = fitted(callback(), steps=40, model=Linear(make))
    _, run = fitted(callback(), steps=20, model=Linear(make))
    run.save_checkpoint(tmp_path / "at20.ckpt")
    resumed, _ = fitted(callback(), steps=40, model=Linear(make), checkpoint=tmp_path / "at20.ckpt")
    assert torch.equal(resumed.net.weight, whole.net.weight)
    with pytest.warns(UserWarning, match="RegularizerCallback"):
        forgetful, _ = fitted(None, steps=40, model=Linear(make), checkpoint=tmp_path / "at20.ckpt")
    assert not torch.equal(forgetful.net.weight, whole.net.weight)  # the penalty matters after step 20


def test_the_same_trainer_goes_on_and_another_begins_anew():
    callback = RegularizerCallback(ts.L2SP(0.2), scale=half)
    model, run = fitted(callback, steps=20)
    kept = callback.regularizer
    run.fit_loop.epoch_loop.max_steps = 40
    run.fit(model, batches())
    assert callback.regularizer is kept
    assert kept.steps == 40
    fitted(callback, model, steps=5)
    assert callback.regularizer is not kept
    assert callback.regularizer.steps == 5


def test_clipping_is_told_at_the_start_and_at_the_end():
    (first, last), model = told(ts.L1(1.0), Linear(factor=large()), gradient_clip_val=1.0)
    assert first.startswith("gradients are clipped at 1 (Trainer(gradient_clip_val=))")
    assert last.startswith(
        f"gradients were clipped at 1 in {STEPS} of {STEPS} steps, and still when training ended, by a "
    )
    assert (int((model.net.weight == 0).sum()), int((solution(1.0, large()) == 0).sum())) == (10, 4)


def told(penalty, model, **more):
    """What is warned of, and the trained model."""
    with pytest.warns(ObjectiveWarning) as caught:
        fitted(RegularizerCallback(penalty), model, **more)
    return [str(each.message) for each in caught if each.category is ObjectiveWarning], model


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_that_has_ended_is_told_at_the_start_alone(algorithm):
    said, model = told(ts.L1(ALPHA), Linear(), gradient_clip_val=20.0, gradient_clip_algorithm=algorithm)
    assert len(said) == 1
    assert_is_the_lasso(model.net.weight)


class ByHand(Linear):
    """Clips in manual optimisation."""

    def __init__(self):
        super().__init__(factor=large())
        self.automatic_optimization = False

    def training_step(self, batch):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch))
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()


class ByOverriding(Linear):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val, gradient_clip_algorithm):
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")


@pytest.mark.parametrize("make", [ByHand, lambda: ByOverriding(factor=large())], ids=["by hand", "overridden"])
def test_clipping_by_the_module_is_told_as_the_trainers(make):
    (first, last), model = told(ts.L1(1.0), make(), steps=50)
    assert first.startswith("gradients are clipped at 1 (clip_gradients in the LightningModule)")
    assert last.startswith("gradients were clipped at 1 in 50 of 50 steps, and still when training ended, by a ")
    assert "clip_gradients" not in vars(model.trainer.precision_plugin)


def test_accumulated_gradients_are_one_step():
    X, _ = data()
    assert len(X) % 2 == 0
    model, _ = fitted(RegularizerCallback(ts.L1(ALPHA)), parts=2, accumulate_grad_batches=2)
    assert_is_the_lasso(model.net.weight)


def test_under_autocast_the_penalty_is_exact_in_float32():
    """As the same steps without Lightning."""
    model = Linear().float()
    X, y = (each.float() for each in data())
    loader = torch.utils.data.DataLoader([(X, y)] * EPOCH, batch_size=None)
    trainer(RegularizerCallback(ts.L1(ALPHA)), 30, precision="bf16-mixed").fit(model, loader)
    plain = linear().float()
    optimizer = MAKE["momentum"](plain.parameters())
    ts.Regularizer(plain, ts.L1(ALPHA)).attach(optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss(plain(X), y).backward()
        optimizer.step()
    assert model.net.weight.dtype == torch.float32
    assert torch.equal(model.net.weight, plain.weight)


class TwoNets(pl.LightningModule):
    """Two lassos, each with an optimizer of its own, stepped by hand in turn."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = linear(), linear()

    def training_step(self, batch):
        X, y = batch
        for optimizer, net in zip(self.optimizers(), (self.first, self.second), strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss(net(X), y))
            optimizer.step()

    def configure_optimizers(self):
        return MAKE["momentum"](self.first.parameters()), MAKE["Adam"](self.second.parameters())


def test_several_optimizers_that_are_stepped_by_hand():
    callback = RegularizerCallback(ts.L1(ALPHA))
    model, _ = fitted(callback, TwoNets(), steps=2 * STEPS)  # Lightning counts every optimizer's
    assert callback.regularizer.steps == STEPS
    assert_is_the_lasso(model.first.weight)
    assert_is_the_lasso(model.second.weight)


def test_one_of_several_optimizers():
    model, _ = fitted(RegularizerCallback(ts.L1(ALPHA), on="second.weight"), TwoNets(), steps=2 * STEPS)
    assert bool((model.first.weight != 0).all())
    assert_is_the_lasso(model.second.weight)


def test_what_is_in_no_optimizer_is_an_error_and_leaves_no_hook():
    class Half(TwoNets):
        def training_step(self, batch):
            self.optimizers().step()

        def configure_optimizers(self):
            self.only = MAKE["momentum"](self.first.parameters())
            return self.only

    model = Half()
    with pytest.raises(AttachmentError, match=r"second\.weight"):
        fitted(RegularizerCallback(ts.L1(ALPHA)), model, steps=1)
    with pytest.raises(AttachmentError, match="no optimizer of this training"):
        fitted(RegularizerCallback(ts.L1(ALPHA), on="second.*"), model, steps=1)
    assert not model.only._optimizer_step_pre_hooks
    assert not model.only._optimizer_step_post_hooks


def test_a_training_that_fails_leaves_no_hook():
    class Fails(Linear):
        def on_train_batch_end(self, *args):
            raise ZeroDivisionError

    callback, model = RegularizerCallback(ts.L1(ALPHA)), Fails()
    with pytest.raises(ZeroDivisionError):
        fitted(callback, model)
    assert callback.regularizer.steps == 1
    assert callback.regularizer.methods == {}


class Rarely(TwoNets):
    """The last optimizer steps in every fifth batch."""

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        for optimizer, net in ((first, self.first), (second, self.second))[: 2 if batch_idx % 5 == 4 else 1]:
            optimizer.zero_grad()
            self.manual_backward(loss(net(batch[0]), batch[1]))
            optimizer.step()


def test_a_schedule_runs_with_the_training_whichever_optimizer_steps_most():
    seen = []
    callback = RegularizerCallback(ts.L1(ALPHA), scale=lambda step: seen.append(step) or 1.0)
    fitted(callback, Rarely(), steps=24)  # of which 20 are the first one's
    assert callback.regularizer.steps == 20
    assert {*range(20)} == {*seen[:-1]}


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_what_is_loaded_without_fitting_is_not_gone_on_from(run, tmp_path):
    class Evaluated(Linear):
        def validation_step(self, batch):
            return loss(self.net(batch[0]), batch[1])

        test_step = predict_step = validation_step

    start = Linear()
    torch.nn.init.constant_(start.net.weight, 7.0)
    fitted(RegularizerCallback(ts.L2SP(0.2)), start, steps=5)[1].save_checkpoint(tmp_path / "at5.ckpt")
    callback = RegularizerCallback(ts.L2SP(0.2))
    again = trainer(callback, 5)
    getattr(again, run)(Evaluated(), batches(steps=1), ckpt_path=tmp_path / "at5.ckpt")
    again.fit(Linear(), batches())
    assert callback.regularizer.steps == 5
    assert float(callback.regularizer.state_dict()["bound"]["net.weight"]["anchor"].abs().max()) == 0.0


def test_optimizers_that_are_replaced_are_followed():
    class Replaces(Linear):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.first, self.trainer.strategy.optimizers = self.trainer.optimizers[0], [self.configure_optimizers()]

    callback = RegularizerCallback(ts.L1(ALPHA))
    model, _ = fitted(callback, Replaces(), steps=STEPS + EPOCH)
    assert_is_the_lasso(model.net.weight)
    assert callback.regularizer.steps == STEPS + EPOCH
    assert not model.first._optimizer_step_post_hooks


def test_a_backbone_that_is_finetuned_later_is_penalised_from_then_on():
    class Backbone(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.net)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 2:
                self.unfreeze_and_add_param_group(pl_module.net, optimizer, lr=0.2)

    class Headed(Linear):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(1, 1, bias=False).double()
            torch.nn.init.ones_(self.head.weight)
            self.head.weight.register_hook(torch.zeros_like)  # stays, so that the rest is a lasso

        def training_step(self, batch):
            return loss(self.head(self.net(batch[0])), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=0.2, momentum=0.7)

    with pytest.raises(InputError, match=r"nothing to penalise: rule 'net\.\*'.*frozen"):
        fitted(RegularizerCallback(ts.L1(ALPHA), on="net.*"), Headed(), callbacks=[Backbone()])
    rules = {"net.*": ts.L1(ALPHA), "head.weight": ts.L2SP(1.0)}  # towards where it is
    with pytest.warns(SelectionWarning, match=r"'net\.\*' penalises nothing.*frozen"):
        model, _ = fitted(RegularizerCallback(rules), Headed(), callbacks=[Backbone()], steps=2 * STEPS)
    assert_is_the_lasso(model.net.weight)


@pytest.mark.parametrize("order", [1, -1])
def test_a_trial_of_learning_rates_leaves_nothing(order):
    class Rated(Linear):
        lr = 0.2

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.7)

    def run(*trial):
        callback = RegularizerCallback(ts.L2SP(0.2), scale=half)
        both = [callback, *trial][::order]
        model = Rated()
        trainer(None, 40, callbacks=both).fit(model, batches(steps=20))
        assert callback.regularizer.steps == 40
        return model.net.weight

    finder = LearningRateFinder(min_lr=1e-3, max_lr=0.3, num_training_steps=5, update_attr=False)
    assert torch.equal(run(finder), run())


def test_lightnings_own_wrapper_is_seen_through():
    model = Linear()
    run = trainer(None, 1)
    run.fit(model, batches())
    outer = model.optimizers()
    assert type(outer).__name__ == "LightningSGD"
    with ts.Regularizer(model, ts.L1(ALPHA)).attach(outer) as reg:
        loss(model.net(data()[0]), data()[1]).backward()
        outer.optimizer.step()
        assert reg.steps == 1
    assert not outer.optimizer._optimizer_step_post_hooks


def test_averaging_takes_zeros_away_and_that_is_said():
    callback = RegularizerCallback(ts.L1(ALPHA))
    with pytest.warns(ObjectiveWarning, match="EMAWeightAveraging puts averages of the weights"):
        model, _ = fitted(callback, callbacks=[EMAWeightAveraging(decay=0.9)], steps=200)
    assert int((model.net.weight == 0).sum()) < 5
    before = objective(model)
    callback.hold_zeros(model)
    assert torch.equal(model.net.weight == 0, solution() == 0)
    assert objective(model) < before
    callback = RegularizerCallback(ts.L1(ALPHA))
    model, _ = fitted(callback, steps=1)
    with pytest.raises(InputError, match="no averaging callback"):
        callback.hold_zeros(model)


@torch.no_grad()
def objective(model):
    return float(loss(model.net(data()[0]), data()[1]) + ALPHA * model.net.weight.abs().sum())


YAML = """
trainer:
  max_steps: 200
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: torchshrink.integrations.lightning.RegularizerCallback
      init_args:
        penalty: {class_path: torchshrink.L1, init_args: {strength: 5.0}}
        "on": ["net.*"]
model:
  factor: 1.0
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_command_lines_yaml_builds_it(tmp_path):
    (tmp_path / "config.yaml").write_text(YAML, encoding="utf-8")
    cli = LightningCLI(Linear, save_config_callback=None, run=False, args=["--config", str(tmp_path / "config.yaml")])
    cli.trainer.fit(cli.model, batches())
    assert_is_the_lasso(cli.model.net.weight)


def test_penalties_among_the_hyperparameters_come_back(tmp_path):
    model = Linear(penalty=ts.GroupLasso(0.1, labels=[0, 0, 1]))
    _, run = fitted(None, model, steps=1)
    run.save_checkpoint(tmp_path / "one.ckpt")
    again = Linear.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    assert again.hparams.penalty == ts.GroupLasso(0.1, labels=[0, 0, 1])
