"""Checkpoints that do not fit, or are another program's: refused in one line, with nothing changed."""

import copy

import pytest
import torch
from torch import nn

from torchshrink.errors import InputError
from torchshrink.support.storage import write_tensors
from torchshrink.training.checkpoint import load_checkpoint, save_checkpoint


def test_what_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    model = nn.Linear(2, 2)
    save_checkpoint(path, model=model, optimizer=torch.optim.SGD(model.parameters()), progress={})
    other = nn.Linear(2, 2)
    before = copy.deepcopy(other.state_dict())
    groups = [{"params": [other.weight]}, {"params": [other.bias]}]
    with pytest.raises(InputError, match="parameter groups"):
        load_checkpoint(path, model=other, optimizer=torch.optim.SGD(groups, lr=0.1))
    assert all(torch.equal(t, before[name]) for name, t in other.state_dict().items())


@pytest.mark.parametrize("structure", ["{", "[]", '{"model": {}}', '{"model": {"$tensor": "gone"}}', "3"])
def test_a_foreign_structure_is_refused_in_one_line(tmp_path, structure):
    path = tmp_path / "checkpoint.safetensors"
    write_tensors(path, {}, {"format": "torchshrink-checkpoint-1", "structure": structure})
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match="not a checkpoint of this version") as raised:
        load_checkpoint(path, model=model, optimizer=torch.optim.SGD(model.parameters()))
    assert "\n" not in str(raised.value)
