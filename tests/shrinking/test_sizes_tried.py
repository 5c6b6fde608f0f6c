"""Sizes at which a model's code goes another way than it was traced: the small model is right there, or it is said."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchshrink as ts
from shrink_cases import zero
from torchshrink.shrinking.trace import trace
from torchshrink.shrinking.valid_sizes import met


def real(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def constant(layer, first=2):
    """Rows that give 1, whatever the input."""
    with torch.no_grad():
        layer.weight[first:] = 0
        layer.bias[first:] = 1


class Image(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 4, stride=4)
        self.change = change
        constant(self.a)

    def forward(self, x):
        return self.b(self.change(torch.sigmoid(self.a(x))))


class Rows(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.change = change
        constant(self.a)

    def forward(self, x):
        return self.b(self.change(torch.relu(self.a(x))))


def odd(h):
    return F.pad(h, (0, 1)) if h.shape[-1] % 2 else h


def to_patches(h):
    down, right = (4 - h.shape[2] % 4) % 4, (4 - h.shape[3] % 4) % 4
    return F.pad(h, (0, right, 0, down)) if down or right else h


def to_eight(h):
    return F.pad(h, (0, -h.shape[-1] % 8)) if -h.shape[-1] % 8 else h


def to_square(h):
    height, width = h.shape[2:]
    most = max(height, width)
    return F.pad(h, (0, most - width, 0, most - height)) if height != width else h


def large(h):
    return F.pad(h, (1, 1, 1, 1)) if h.shape[2] * h.shape[3] > 10000 else h


def wide(h):
    return F.pad(h, (1, 1, 1, 1)) if 3 * h.shape[3] > 15000 else h


def small(h):
    return F.pad(h, (1, 1, 1, 1)) if h.shape[2] * h.shape[3] < 64 else h


IMAGES = {
    "odd": (odd, (8, 8), (9, 9), (8, 9)),
    "patches": (to_patches, (16, 16), (18, 18), (30, 17)),
    "to eight": (to_eight, (8, 8), (8, 11), (9, 15)),
    "square": (to_square, (8, 8), (8, 12), (12, 8)),
    "large": (large, (32, 32), (120, 120), (101, 100)),
    "wide": (wide, (8, 8), (8, 5100)),
    "small": (small, (8, 8), (7, 7), (4, 15)),
}


def right(model, example, *others):
    """Shrink in float64; the small model gives what the large one does on all of these."""
    model = model.double().eval()
    shrunk = ts.shrink(model, example)
    for x in others:
        args = x if isinstance(x, tuple) else (x,)
        with torch.no_grad():
            wanted, found = model(*args), shrunk.model(*args)
        assert wanted.isfinite().all()
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= 1e-12 * max(1, wanted.abs().max())
    return shrunk


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_of_any_size_that_is_padded_by_its_size(kind):
    change, own, *others = IMAGES[kind]
    shrunk = right(Image(change), real(2, 3, *own), *(real(2, 3, *size) for size in (own, *others)))
    assert any("inputs of" in reason for reason in shrunk.pinned)


def test_only_constants_stay_where_code_pads():
    """Padding with zeros is right for what nothing reads."""
    model = Image(to_patches)
    with torch.no_grad():
        model.b.weight[:, 4:] = 0  # of the six constants, four are not read
    shrunk = right(model, real(2, 3, 16, 16), real(2, 3, 18, 18))
    assert shrunk.model.a.out_channels == 4


def test_without_constants_all_goes_and_other_sizes_are_right():
    model = Image(to_patches)
    zero(model.a.weight, range(2, 8))
    zero(model.b.weight, range(2, 8), dim=1)
    shrunk = right(model, real(2, 3, 16, 16), real(2, 3, 18, 18), real(1, 3, 21, 17))
    assert shrunk.model.a.out_channels == 2
    assert not shrunk.ranges or all("≥" in one for one in shrunk.ranges)


def sequence(h):
    return F.pad(h, (0, 0, 0, -h.shape[1] % 4)) if h.shape[1] % 4 else h


class Sequence(Rows):
    def forward(self, x):
        h = self.change(torch.sigmoid(self.a(x)))
        return self.b(h.unflatten(1, (-1, 4)).mean(2))


@pytest.mark.parametrize("length", [9, 11, 16])
def test_a_sequence_that_is_padded_to_a_multiple(length):
    right(Sequence(sequence), real(2, 8, 4), real(2, length, 4))


def one_row(h):
    return h / h.sum(-1, keepdim=True) if h.shape[0] == 1 else h


def one_token(h):
    return h / h.sum(-1, keepdim=True) if h.shape[1] == 1 else h


def five_tokens(h):
    return h if h.shape[1] == 5 else h / h.sum(-1, keepdim=True)


def sixth_token(h):
    for place in range(h.shape[1]):
        h = h / h.sum(-1, keepdim=True) if place == 5 else h
    return h


def half_of_four_rows(h):
    return h if h.shape[0] % 4 < 2 else h / h.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("change", "own", "other"),
    [
        (one_row, (5, 4), (1, 4)),
        (one_row, (1, 4), (1, 4)),
        (one_token, (2, 5, 4), (2, 1, 4)),
        (five_tokens, (2, 5, 4), (2, 6, 4)),
        (sixth_token, (2, 5, 4), (2, 6, 4)),
        (half_of_four_rows, (8, 4), (7, 4)),
    ],
)
def test_a_number_of_rows_or_tokens_that_the_code_asks_for(change, own, other):
    right(Rows(change), real(*own), real(*other))


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)
        constant(self.a)

    def forward(self, x):
        h = torch.relu(self.a(x)).mean((2, 3), keepdim=True).squeeze()
        return self.b(h - h.mean(0))


def test_one_image_that_loses_its_row():
    right(Squeezed(), real(2, 3, 5, 5), real(1, 3, 5, 5))


class Two(Rows):
    """Another number of rows in the second input, or twice as many."""

    def forward(self, x, z):
        h, other = torch.relu(self.a(x)), torch.relu(self.a(z))
        if self.change == "twice":
            return self.b(h) + torch.tanh(z[:, :3]).reshape(x.shape[0], 2, 3).sum(1)
        if x.shape[0] != z.shape[0]:
            return h.sum(1)[:, None] + 0 * other.sum()
        return self.b(h) + self.b(other)


def test_two_inputs_that_have_another_number_of_rows():
    right(Two("apart"), (real(3, 4), real(3, 4)), (real(3, 4), real(5, 4)), (real(6, 4), real(6, 4)))


def test_a_size_that_is_twice_another_is_tried_as_such():
    shrunk = right(Two("twice"), (real(3, 4), real(6, 4)), (real(5, 4), real(10, 4)))
    assert any(z[0] == 2 * x[0] and x[0] != 3 for x, z in shrunk.tried)
    assert shrunk.model.a.out_features == 2


def test_which_sizes_ran_is_said():
    shrunk = right(Rows(lambda h: h), real(5, 4))
    assert {((5, 4),), ((6, 4),), ((1, 4),)} <= set(shrunk.tried)
    assert "(5, 4), (6, 4)" in str(shrunk)


class Refusing(Rows):
    def forward(self, x):
        assert x.shape[0] % 5 == 0
        return super().forward(x)


def test_sizes_that_the_model_refuses_are_not_among_them():
    shrunk = right(Refusing(lambda h: h), real(5, 4), real(10, 4))
    assert ((10, 4),) in shrunk.tried
    assert all(x[0] % 5 == 0 for (x,) in shrunk.tried)


class Huge(Rows):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h if x.shape[0] * x.shape[1] < 10**12 else h + 1)


def test_a_condition_that_cannot_be_tried_is_said():
    shrunk = right(Huge(None), real(2, 5, 4))
    assert [one for one in shrunk.ranges if re.fullmatch(r"x.shape\[.\]\*x.shape\[.\] < 1000000000000", one)]


class FixedLength(nn.Module):
    """The tokens are read by a weight, the frames are not."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return torch.stack([self.b(torch.relu(self.a(x[:, place]))) for place in range(x.shape[1])]).sum(0)


def test_a_size_that_the_trace_fixed_is_said_and_a_width_is_not():
    assert right(FixedLength(), real(2, 5, 4), real(2, 7, 4)).ranges == ("x.shape[1] = 5",)


class Options(Rows):
    def forward(self, x, mask=None, raw=False, *, scale=1.0):
        h = torch.relu(self.a(x))
        h = h if mask is None else h * mask
        return h if raw else self.b(h) * scale


def test_arguments_that_are_no_tensors_or_left_out_are_said():
    x, mask = real(5, 4), real(5, 1)
    assert right(Options(None), x).ranges == ("mask = None", "raw = False", "scale = 1.0")
    assert right(Options(None), (x, mask)).ranges == ("mask.shape[1] = 1", "raw = False", "scale = 1.0")
    shrunk = right(Options(None), {"x": x, "scale": 2.0})
    assert "holds for mask = None, raw = False, scale = 2.0" in str(shrunk)


def test_conditions_are_read_as_sympy_reads_them():
    model = Image(to_patches).double().eval()
    found = trace(model, (real(2, 3, 16, 16),), {}, plain=True).guards
    assert len(found) >= 3
    for condition in found:
        for size in range(1, 40):
            values = dict.fromkeys(condition.free_symbols, size)
            assert met(condition, values) == bool(condition.subs(values))
