"""RegularizerCallback on what people train with Transformers: a BERT, and a LoRA adapter of it by peft."""

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

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STEPS = 100


@functools.cache
def data():
    """Whether the first word comes after the fifth, in 32 sentences."""
    words = torch.randint(0, 50, (32, 8), generator=torch.Generator().manual_seed(1))
    return words, (words[:, 0] > words[:, 4]).long()


def bert():
    torch.manual_seed(0)
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(**SIZES, **without, max_position_embeddings=12))


def lora():
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=4)
    return peft.get_peft_model(bert(), settings)


CASES = {  # model, the callback's arguments, which share of zeros at least
    "BERT": (bert, {"penalty": ts.SparseGroupLasso(1e-4, 1e-4)}, 0.5),
    "LoRA": (lora, {"penalty": ts.L1(1e-5), "on": "*lora_*"}, 0.3),
    "LoRA towards the pretrained weights": (lora, {"penalty": ts.L2SP(1e-2), "on": "*lora_*"}, 0.0),
}


def trained(model, callback, folder, resume=None):
    words, labels = data()
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no"}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=STEPS // 2,
        per_device_train_batch_size=32,
        max_grad_norm=0.0,
        learning_rate=1e-2,
        **quiet,
    )
    rows = [{"input_ids": each, "labels": label} for each, label in zip(words, labels, strict=True)]
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback]).train(resume_from_checkpoint=resume)
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
    make, arguments, zeros = CASES[case]
    callback = RegularizerCallback(**arguments)
    whole = trained(make(), callback, tmp_path)
    resumed = trained(make(), RegularizerCallback(**arguments), tmp_path, str(tmp_path / f"checkpoint-{STEPS // 2}"))
    for name, weight in whole.named_parameters():
        assert torch.equal(resumed.get_parameter(name), weight), name
    at_start = make()
    before = certificate(at_start, bound(at_start, arguments["penalty"], arguments.get("on", "weights"), None))
    after = certificate(whole, callback.regularizer)
    assert after.objective < 0.95 * before.objective
    assert after.distance < 0.5 * before.distance
    assert zeros <= callback.regularizer.sparsity().fraction < 1.0
    assert callback.regularizer.steps == STEPS
