"""Inside ``torch.no_grad()`` and ``torch.inference_mode()``: what needs gradients takes them, with the same results."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from situations import same_bits, values
from torchshrink.certifying import certify, duality_gap
from torchshrink.errors import InputError
from torchshrink.polishing import polish

off = pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
SETTINGS = {"strengths": [1e-2, 1e-1], "epochs": 2, "folds": 2, "batch_size": 10, "progress": False}


def data():
    X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return X, X @ torch.tensor([[1.0], [0.0], [-2.0]])


def model_and_reg(penalty=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, ts.Regularizer(model, penalty or ts.L1(0.1))


@off
@pytest.mark.parametrize("engine", ["sequential", "lanes"])
@pytest.mark.parametrize("order", ["cold", "warm"])
def test_a_path_and_its_refit(off, engine, order):
    plain = ts.path(lambda: nn.Linear(3, 1), data(), ts.L1, engine=engine, order=order, **SETTINGS)
    with off():
        result = ts.path(lambda: nn.Linear(3, 1), data(), ts.L1, engine=engine, order=order, **SETTINGS)
        for polished in (False, True):
            model, certificate = result.refit(polish=polished)
            twin, same = plain.refit(polish=polished)
            assert certificate == same
            assert same_bits(values(model), values(twin))
        assert torch.is_grad_enabled() is False
    assert torch.equal(result.losses, plain.losses)
    model(data()[0]).sum().backward()  # the model is an ordinary one


@off
def test_proofs_and_polish(off):
    def looked_at():
        model, reg = model_and_reg()

        def closure():
            model.zero_grad()
            loss = (model(X) - y).square().mean()
            loss.backward()
            return loss

        X, y = data()
        proofs = certify(model, (X, y), reg), reg.certify(closure), duality_gap(model, (X, y), reg)
        polished = polish(model, (X, y), reg)
        assert polished.converged
        return str(proofs), polished.certificate, values(model)

    proofs, certificate, weights = looked_at()
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    with off():
        if off is torch.no_grad:
            again = looked_at()
            assert again[:2] == (proofs, certificate)
            assert same_bits(again[2], weights)
        reg = ts.Regularizer(model, ts.L1(0.1))
        assert str((certify(model, data(), reg),))[1:-1] in proofs  # the data are inference tensors there
        assert polish(model, data(), reg).certificate == certificate


def test_a_model_made_in_inference_mode_is_refused_by_name():
    with torch.inference_mode():
        model, reg = model_and_reg()
    for look in (lambda: certify(model, data(), reg), lambda: polish(model, data(), reg), lambda: reg.certify(list)):
        with pytest.raises(InputError, match=r"^weight was made inside torch\.inference_mode\(\)"):
            look()


@off
@pytest.mark.parametrize("penalty", [ts.L1(0.1), ts.L2(0.1), ts.L2SP(0.1)])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_attached_steps(off, penalty, make):
    ends = []
    for inside in (False, True):
        model, _ = model_and_reg()
        X, y = data()
        optimizer = make(model.parameters(), lr=0.1)
        with off(inside) if off is torch.inference_mode else torch.set_grad_enabled(not inside):
            ts.Regularizer(model, penalty).attach(optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            (model(X) - y).square().mean().backward()
            with off(inside) if off is torch.inference_mode else torch.set_grad_enabled(not inside):
                optimizer.step()
        ends.append(values(model))
    assert same_bits(*ends)
