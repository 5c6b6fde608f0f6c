"""What `attach` is handed by frameworks without a door of their own; and nobody imports those that have one."""

import subprocess
import sys

import pytest
import torch
from diabetes import ALPHA, MAKE, STEPS, assert_is_the_lasso, data, linear, loss

import torchshrink as ts
from torchshrink.errors import AttachmentError

FRAMEWORKS = ("lightning", "pytorch_lightning", "transformers", "skorch", "accelerate", "ignite", "peft", "sklearn")


def test_importing_the_library_imports_no_framework():
    code = f"import sys, torchshrink; print([name for name in {FRAMEWORKS} if name in sys.modules])"
    code += "; print([name for name in sys.modules if 'torchshrink.integrations' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def accelerated(parameters, make="momentum"):
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(MAKE[make](parameters))


def steps(model, optimizer, count):
    X, y = data()
    for _ in range(count):
        optimizer.zero_grad()
        loss(model(X), y).backward()
        optimizer.step()


@pytest.mark.parametrize("make", MAKE)
def test_accelerates_optimizer_ends_at_the_lasso(make):
    model = linear()
    outer = accelerated(model.parameters(), make)
    reg = ts.Regularizer(model, ts.L1(ALPHA)).attach(outer)
    steps(model, outer, STEPS)
    assert_is_the_lasso(model.weight)
    reg.detach()
    assert not outer.optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("why", ["no prox", "no such parameter"])
def test_a_failed_attach_leaves_no_hook(why):
    model = linear()
    outer = accelerated(model.parameters() if why == "no prox" else [model.bias])
    with pytest.raises(AttachmentError):
        ts.Regularizer(model, ts.Orthogonal(1.0) if why == "no prox" else ts.L1(ALPHA)).attach(outer, "prox")
    for optimizer in (outer, outer.optimizer):
        hooks = vars(optimizer).get("_optimizer_step_pre_hooks"), vars(optimizer).get("_optimizer_step_post_hooks")
        assert not any(hooks)


CASES = {"L1": ts.L1(ALPHA), "L2SP": ts.L2SP(0.2), "schedule": ts.L1(ALPHA)}


@pytest.mark.parametrize("case", CASES)
def test_accelerates_checkpoints_go_on_as_the_whole_run(case, tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def started():
        accelerator = accelerate.Accelerator(cpu=True)
        model = linear()
        model, optimizer = accelerator.prepare(model, MAKE["Adam"](model.parameters()))
        reg = ts.Regularizer(model, CASES[case])
        if case == "schedule":
            reg.scale = lambda step: 0.5 if step < 30 else 1.0
        accelerator.register_for_checkpointing(reg.attach(optimizer))
        return accelerator, model, optimizer

    _, whole, optimizer = started()
    steps(whole, optimizer, 40)
    accelerator, part, optimizer = started()
    steps(part, optimizer, 20)
    accelerator.save_state(tmp_path)
    accelerator, resumed, optimizer = started()
    accelerator.load_state(tmp_path)
    steps(resumed, optimizer, 20)
    assert torch.equal(resumed.weight, whole.weight)


def in_accelerate(model, make, batch, count, *, bf16=False, clip=None, accumulate=1):
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(
        cpu=True, mixed_precision="bf16" if bf16 else "no", gradient_accumulation_steps=accumulate
    )
    prepared, optimizer = accelerator.prepare(model, make(model.parameters()))
    reg = ts.Regularizer(prepared, ts.L1(ALPHA)).attach(optimizer)
    for _ in range(count * accumulate):
        with accelerator.accumulate(prepared):
            accelerator.backward(loss(prepared(batch[0]), batch[1]))
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(prepared.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return reg


def in_ignite(model, make, batch, count, *, bf16=False, clip=None, accumulate=1):
    engine = pytest.importorskip("ignite.engine")
    optimizer = make(model.parameters())
    reg = ts.Regularizer(model, ts.L1(ALPHA)).attach(optimizer)
    if clip is not None:
        optimizer.register_step_pre_hook(
            lambda *args: torch.nn.utils.clip_grad_norm_(model.parameters(), clip) and None
        )

    def forward(inputs):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(inputs)

    trainer = engine.create_supervised_trainer(
        model, optimizer, loss, model_fn=lambda _, x: forward(x), gradient_accumulation_steps=accumulate
    )
    trainer.run([batch] * (count * accumulate), max_epochs=1)
    return reg


LOOPS = {"accelerate": in_accelerate, "ignite": in_ignite}


@pytest.mark.parametrize("loop", [*LOOPS.values()], ids=[*LOOPS])
def test_under_autocast_the_penalty_is_exact_in_float32(loop):
    batch = tuple(each.float() for each in data())
    model, plain = linear().float(), linear().float()
    loop(model, MAKE["momentum"], batch, 30, bf16=True)
    optimizer = MAKE["momentum"](plain.parameters())
    ts.Regularizer(plain, ts.L1(ALPHA)).attach(optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = plain(batch[0])
        loss(output.float(), batch[1]).backward()
        optimizer.step()
    assert model.weight.dtype == torch.float32
    assert torch.allclose(model.weight, plain.weight, rtol=0, atol=1e-4 * float(plain.weight.detach().abs().max()))
    assert torch.equal(model.weight == 0, plain.weight == 0)


@pytest.mark.parametrize("loop", [*LOOPS.values()], ids=[*LOOPS])
def test_accumulated_gradients_are_one_step(loop):
    model = linear()
    reg = loop(model, MAKE["momentum"], data(), STEPS, accumulate=2)
    assert reg.steps == STEPS
    assert_is_the_lasso(model.weight)


@pytest.mark.parametrize("loop", [*LOOPS.values()], ids=[*LOOPS])
def test_clipping_that_ends_does_no_harm_and_one_that_does_not_solves_for_a_larger_strength(loop):
    model = linear()
    loop(model, MAKE["momentum"], data(), STEPS, clip=20.0)
    assert_is_the_lasso(model.weight)
    model = linear()
    loop(model, MAKE["momentum"], data(), STEPS, clip=1.0)
    assert int((model.weight == 0).sum()) == 10


@pytest.mark.parametrize("make", MAKE)
def test_ignites_trainer_ends_at_the_lasso(make):
    engine = pytest.importorskip("ignite.engine")
    model = linear()
    optimizer = MAKE[make](model.parameters())
    ts.Regularizer(model, ts.L1(ALPHA)).attach(optimizer)
    engine.create_supervised_trainer(model, optimizer, loss).run([data()] * 50, max_epochs=STEPS // 50)
    assert_is_the_lasso(model.weight)
