"""Autocast is off inside and as it was after, whichever kinds were on; compiled as well."""

import pytest
import torch

from torchshrink.support.precision import without_autocast

KINDS = ("cpu", "cuda")  # the second is a switch also where there is no such device


@pytest.fixture(params=[(), ("cpu",), ("cuda",), ("cpu", "cuda")], ids=" and ".join)
def on(request):
    for kind in request.param:
        torch.set_autocast_enabled(kind, True)
    yield request.param
    for kind in KINDS:
        torch.set_autocast_enabled(kind, False)


def enabled():
    return tuple(kind for kind in KINDS if torch.is_autocast_enabled(kind))


def test_every_kind_is_off_inside_and_as_it_was_after(on):
    with without_autocast():
        assert enabled() == ()
    assert enabled() == on
    with pytest.raises(ZeroDivisionError), without_autocast():
        raise ZeroDivisionError
    assert enabled() == on


def test_compiled(on):
    torch.compiler.reset()

    def square(w):
        with without_autocast():
            return w @ w

    w = torch.ones(2, 2)
    assert torch.compile(square, backend="eager")(w).dtype == torch.float32
    assert enabled() == on
    assert (w @ w).dtype == (torch.bfloat16 if "cpu" in on else torch.float32)
