"""RegularizerCallback inside Transformers' own Trainer."""

import pytest
import torch
from diabetes import ALPHA, MAKE, STEPS, assert_is_the_lasso, data, large, linear, loss, solution
from torch import nn

import torchshrink as ts
from torchshrink.errors import ObjectiveWarning

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import Trainer, TrainingArguments  # noqa: E402

from torchshrink.integrations.transformers import RegularizerCallback  # noqa: E402


class Linear(nn.Module):
    """Least squares on all rows, whatever the batch: an element of the data set only says that there is a step."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.net = linear()
        self.factor = factor
        X, y = data()
        self.register_buffer("X", X.clone(), persistent=False)
        self.register_buffer("y", y.clone(), persistent=False)

    def forward(self, step):
        return {"loss": loss(self.net(self.X), self.factor * self.y)}


def arguments(folder, steps=STEPS, **more):
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "use_cpu": True}
    settings = {"max_steps": steps, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", **quiet, **more}
    return TrainingArguments(output_dir=str(folder), per_device_train_batch_size=1, **settings)


def trainer(callback, folder, model=None, *, make="momentum", rows=None, optimizer=None, **more):
    model = Linear() if model is None else model
    optimizer = optimizer or MAKE[make](model.parameters())
    return Trainer(
        model=model,
        args=arguments(folder, **more),
        train_dataset=rows or [{"step": torch.tensor(i)} for i in range(8)],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        callbacks=callback if isinstance(callback, list) else [callback] if callback else [],
    )


@pytest.mark.parametrize("make", MAKE)
def test_it_ends_at_the_lasso(make, tmp_path):
    callback = RegularizerCallback(ts.L1(ALPHA))
    run = trainer(callback, tmp_path, make=make)
    run.train()
    assert_is_the_lasso(run.model.net.weight)
    assert callback.regularizer.methods == {}  # detached


def half(step):
    return 0.5 if step < 15 else 1.0


CASES = {
    "L1": {"penalty": ts.L1(ALPHA)},
    "latent": {"penalty": ts.L1(ALPHA), "method": "latent"},
    "L2SP": {"penalty": ts.L2SP(0.2)},
    "schedule": {"penalty": ts.L1(ALPHA), "scale": half},
}


@pytest.mark.parametrize(("case", "make"), [*zip(CASES, ("momentum", "Adam", "Adam", "momentum"), strict=True)])
def test_a_resumed_run_is_the_whole_run(case, make, tmp_path):
    settings = {"make": make, "steps": 20, "save_strategy": "steps", "save_steps": 10}
    whole = trainer(RegularizerCallback(**CASES[case]), tmp_path, **settings)
    whole.train()
    at10 = tmp_path / "checkpoint-10"
    other = Linear()  # a run that has a checkpoint of the same step, in the folder that the resumed one writes to
    torch.nn.init.constant_(other.net.weight, 7.0)
    trainer(RegularizerCallback(**CASES[case]), tmp_path / "other", other, **{**settings, "steps": 10}).train()
    for folder in (tmp_path, tmp_path / "other"):
        resumed = trainer(RegularizerCallback(**CASES[case]), folder, **settings)
        resumed.train(resume_from_checkpoint=str(at10))
        assert torch.equal(resumed.model.net.weight, whole.model.net.weight)


def test_nothing_is_written_beside_the_trainers_own_checkpoints(tmp_path):
    """As in a search of hyperparameters, whose folders only the Trainer knows."""

    def searching():
        run = trainer(RegularizerCallback(ts.L2SP(0.2)), tmp_path, steps=4, save_strategy="steps", save_steps=2)
        run._get_output_dir = lambda trial: str(tmp_path / "run-3")
        return run

    whole = searching()
    whole.train()
    assert [each.name for each in tmp_path.iterdir()] == ["run-3"]
    resumed = searching()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run-3" / "checkpoint-2"))
    assert torch.equal(resumed.model.net.weight, whole.model.net.weight)


def test_a_second_training_begins_anew(tmp_path):
    callback = RegularizerCallback(ts.L2SP(0.2))
    run = trainer(callback, tmp_path, steps=5)
    run.train()
    kept = callback.regularizer
    run.train()
    assert callback.regularizer is not kept
    assert callback.regularizer.steps == 5
    assert len(run.optimizer.optimizer._optimizer_step_pre_hooks) == 0


def said(caught):
    return [str(each.message) for each in caught if each.category is ObjectiveWarning]


@pytest.mark.parametrize("logged", [True, False])
def test_the_default_clipping_is_told_at_the_start_and_at_the_end(logged, tmp_path):
    logging = {"logging_strategy": "steps", "logging_steps": 10} if logged else {}
    run = trainer(RegularizerCallback(ts.L1(1.0)), tmp_path, Linear(large()), max_grad_norm=1.0, **logging)
    with pytest.warns(ObjectiveWarning) as caught:
        run.train()
    first, last = said(caught)
    assert first.startswith("gradients are clipped at 1 (TrainingArguments(max_grad_norm=))")
    assert last.startswith(f"gradients were clipped at 1 in {STEPS} of {STEPS} steps, and still when training ended")
    assert ("by a factor of " in last) is logged
    assert (int((run.model.net.weight == 0).sum()), int((solution(1.0, large()) == 0).sum())) == (10, 4)
    if logged:
        off = trainer(RegularizerCallback(ts.L1(1.0)), tmp_path, Linear(large()))
        off.train()
        assert_is_the_lasso(off.model.net.weight, alpha=1.0, factor=large())


def test_clipping_that_has_ended_is_told_at_the_start_alone(tmp_path):
    run = trainer(RegularizerCallback(ts.L1(ALPHA)), tmp_path, max_grad_norm=20.0)
    with pytest.warns(ObjectiveWarning) as caught:
        run.train()
    assert len(said(caught)) == 1
    assert_is_the_lasso(run.model.net.weight)


def test_accumulated_gradients_are_one_step(tmp_path):
    callback = RegularizerCallback(ts.L1(ALPHA))
    run = trainer(callback, tmp_path, gradient_accumulation_steps=2)
    run.train()
    assert callback.regularizer.steps == STEPS
    assert_is_the_lasso(run.model.net.weight)


def test_weight_decay_beside_it_is_told(tmp_path):
    model = Linear()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    run = trainer(RegularizerCallback(ts.L1(ALPHA)), tmp_path, model, optimizer=optimizer, steps=2)
    with pytest.warns(ObjectiveWarning, match=r"AdamW\(weight_decay=0.1\) also acts"):
        run.train()


@pytest.mark.parametrize("more", [{"bf16": True}, {"torch_compile": True, "torch_compile_backend": "eager"}], ids=str)
def test_under_autocast_and_compiled_it_is_the_same_as_in_a_loop(more, tmp_path):
    run = trainer(RegularizerCallback(ts.L1(ALPHA)), tmp_path, Linear().float(), steps=30, **more)
    run.train()
    plain = Linear().float()
    optimizer = MAKE["momentum"](plain.parameters())
    ts.Regularizer(plain, ts.L1(ALPHA)).attach(optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in more):
            plain(torch.tensor(0))["loss"].backward()
        optimizer.step()
    assert run.model.net.weight.dtype == torch.float32
    assert torch.equal(run.model.net.weight, plain.net.weight)
