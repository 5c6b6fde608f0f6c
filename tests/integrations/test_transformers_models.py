"""RegularizerCallback on what people train with Transformers: a BERT, and a LoRA adapter of it by peft."""

import contextlib
import functools

import pytest
import torch

import torchshrink as ts

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("accelerate")

from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments  # noqa: E402

from torchshrink.integrations.transformers import RegularizerCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft of itself

SIZES = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@functools.cache
def data():
    """Whether the first word comes after the fifth, in 32 sentences."""
    words = torch.randint(0, 50, (32, 8), generator=torch.Generator().manual_seed(1))
    return words, (words[:, 0] > words[:, 4]).long()


def bert():
    torch.manual_seed(0)
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(**SIZES, **without, max_position_embeddings=12)).double()


def probed():
    """Its pooler and classifier alone are trained."""
    model = bert()
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.requires_grad_(False)
    return model


def lora():
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2)
    return peft.get_peft_model(bert(), settings).double()


CASES = {  # model, the callback's arguments, the learning rate, steps, and how far from a stationary point it may end
    "probed BERT": (probed, {"penalty": ts.ElasticNet(1e-3, 1e-2)}, 0.5, 300, 1e-6),
    "LoRA, off": (lora, {"penalty": {"*lora_*": ts.L1(1e-3), "*": ts.L2(3e-3)}, "on": "all"}, 0.5, 300, 1e-6),
    # Adapters that are at work, and the weights of a whole BERT in front of LayerNorm, take far more steps than these:
    # F falls, no more.
    "LoRA": (lora, {"penalty": ts.ElasticNet(1e-6, 1e-5)}, 0.1, 60, None),
    "BERT": (bert, {"penalty": ts.SparseGroupLasso(1e-4, 1e-4)}, 0.01, 60, None),
    "BERT towards the pretrained weights": (bert, {"penalty": ts.L2SP(0.1), "on": "all"}, 0.01, 60, None),
}


def trained(model, callback, folder, *, lr, steps, resume=None, **more):
    words, labels = data()
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no"}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=32,
        max_grad_norm=0.0,
        **{"save_steps": steps * 2 // 3, **quiet, **more},
    )
    rows = [{"input_ids": each, "labels": label} for each, label in zip(words, labels, strict=True)]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=[callback], optimizers=(optimizer, schedule)
    ).train(resume_from_checkpoint=resume)
    return model


def certificate(model, reg):
    words, labels = data()

    def closure():
        model.zero_grad()
        loss = model(input_ids=words, labels=labels).loss
        loss.backward()
        return loss

    return reg.certify(closure)


@pytest.mark.parametrize("case", CASES)
def test_it_is_trained_resumed_and_certified(case, tmp_path):
    make, arguments, lr, steps, end = CASES[case]
    callback = RegularizerCallback(**arguments)
    off = "every LoRA adapter ends with lora_A or lora_B at zero"
    saved = str(tmp_path / f"checkpoint-{steps * 2 // 3}")
    with pytest.warns(UserWarning, match=off) if case == "LoRA, off" else contextlib.nullcontext():
        whole = trained(make(), callback, tmp_path, lr=lr, steps=steps)
        resumed = trained(make(), RegularizerCallback(**arguments), tmp_path, lr=lr, steps=steps, resume=saved)
    for name, weight in whole.named_parameters():
        assert torch.equal(resumed.get_parameter(name), weight), name
    at_start = make()
    before = certificate(at_start, ts.Regularizer(at_start, arguments["penalty"], arguments.get("on", "weights")))
    after = certificate(whole, callback.regularizer)
    assert after.objective < 0.99 * before.objective
    assert callback.regularizer.steps == steps
    if end is not None:
        assert after.distance <= end
        assert after.relative <= 1e3 * end
        assert 0.2 < callback.regularizer.sparsity().fraction < 1.0
    if case == "BERT towards the pretrained weights":
        anchors = callback.regularizer.state_dict()["bound"]
        assert all(torch.equal(each["anchor"], at_start.get_parameter(name)) for name, each in anchors.items())
        assert {*anchors} == {name for name, _ in at_start.named_parameters()}


@pytest.mark.parametrize("on", ["*lora_*", "*lora_A*"])
def test_adapters_that_are_all_switched_off_are_told(on, tmp_path):
    both = on == "*lora_*"
    told = pytest.warns(UserWarning, match="every LoRA adapter ends with") if both else contextlib.nullcontext()
    with told:
        model = trained(
            lora(), RegularizerCallback(ts.L1(1e-2 if both else 1e-5), on=on), tmp_path, lr=0.5, steps=20, save_steps=20
        )
    off = [bool((weight == 0).all()) for name, weight in model.named_parameters() if "lora_B" in name]
    assert all(off) is both
