"""ts.shrink: smaller models whose outputs are equal."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import torchshrink as ts
from shrink_cases import check, zero


def vectors(rows, width):
    return torch.randn(rows, width).double()


def images(rows, channels=3, size=6):
    return torch.randn(rows, channels, size, size).double()


def model_of(*layers):
    return nn.Sequential(*layers).double().eval()


def test_three_quarters_of_the_units_gone_leave_a_seventh_of_the_parameters():
    model = model_of(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    for layer in (model[0], model[2]):
        zero(layer.weight, range(96))
    shrunk = check(model, vectors(1, 784), vectors(5, 784))
    assert (shrunk.model[0].out_features, shrunk.model[2].in_features, shrunk.model[2].out_features) == (32, 32, 32)
    assert shrunk.kept["0.weight"] == ((128, 784), (32, 784))
    assert shrunk.operations[1] < 0.3 * shrunk.operations[0]
    assert "0.weight: (128, 784) → (32, 784)" in str(shrunk)


@pytest.mark.parametrize("rows", ["first", "columns"])
def test_a_linear_layer_gets_the_bias_that_it_lacks_only_where_a_constant_needs_one(rows):
    model = model_of(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 3, bias=False))
    if rows == "first":
        zero(model[0].weight, range(4))  # sigmoid(bias) is not zero
    else:
        zero(model[2].weight, range(4), dim=1)
    shrunk = check(model, vectors(2, 5), vectors(9, 5))
    assert shrunk.model[0].out_features == 4
    assert (shrunk.model[2].bias is not None) == (rows == "first")


@pytest.mark.parametrize(
    "reader",
    [
        nn.Conv2d(8, 4, 3, padding=1),
        nn.Conv2d(8, 4, 3, padding="same"),
        nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(8, 4, 3, padding=1, padding_mode="replicate"),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
        nn.Sequential(nn.AvgPool2d(3, 2, padding=1), nn.Conv2d(8, 4, 1)),
        nn.Sequential(nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), nn.Conv2d(8, 4, 1, bias=False)),
        nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 4, 3)),
        nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(8, 4, 3, padding=2, dilation=2)),
    ],
    ids=lambda reader: str(reader).replace("\n", " ")[:70],
)
def test_constants_before_padding(reader):
    """Channels 0 to 4 are constant and not zero: the border must not show that they went."""
    model = model_of(nn.Conv2d(3, 8, 1), nn.Sigmoid(), copy.deepcopy(reader))
    zero(model[0].weight, range(5))
    shrunk = check(model, images(1), images(3, size=6), images(2, size=8))
    by_a_bias = "padding_mode" in str(reader) or "count_include_pad=False" in str(reader)
    stuck = isinstance(reader, nn.Sequential) and not isinstance(reader[0], nn.MaxPool2d) and not by_a_bias
    averaged = isinstance(reader, nn.Sequential) and isinstance(reader[0], nn.AvgPool2d)
    if not stuck and not averaged:
        assert shrunk.model[0].out_channels == (3 if by_a_bias else 4)


class Width(nn.Module):
    """Python code that looks at sizes."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16 if kind != "view" else 8, 3)

    def forward(self, x):
        y = torch.relu(self.a(x))
        if self.kind == "number":
            y = y / y.shape[1] ** 0.5
        elif self.kind == "far number":
            y = y * 2 + 1 / x.shape[1] + y.shape[1] * 0.01
        elif self.kind == "view":
            return self.b(y.view(-1, 8)).sum(1)
        elif (self.kind == "branch" and x.shape[0] > 3) or (self.kind == "width branch" and y.shape[1] > 8):
            y = y * 2
        elif self.kind == "loop":
            for _ in range(y.shape[1] // 4):
                y = torch.tanh(y)
        return self.b(y)


@pytest.mark.parametrize("kind", ["number", "far number", "view", "width branch", "loop"])
def test_code_that_computes_with_a_width_is_found_out(kind):
    model = Width(kind).double().eval()
    zero(model.a.weight, range(8))
    zero(model.a.bias, range(8))
    shrunk = check(model, vectors(4, 6), vectors(6, 6))
    assert shrunk.model.a.out_features == 16
    assert shrunk.pinned


def test_a_branch_on_the_number_of_rows_is_reported_as_a_range():
    model = Width("branch").double().eval()
    zero(model.a.weight, range(8))
    shrunk = check(model, vectors(5, 6), vectors(7, 6))
    assert shrunk.ranges == ("x.shape[0] ≥ 4",)
    assert "holds for x.shape[0] ≥ 4" in str(shrunk)


class Many(nn.Module):
    """A branch on a number of entries, which a smaller model has fewer of: with enough rows both go the same way."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        zero(self.a.weight, range(8))

    def forward(self, x):
        y = torch.relu(self.a(x))
        return self.b(y * 2 if y.numel() > 100 else y)


def test_a_branch_that_the_smaller_model_takes_at_other_sizes_keeps_the_width():
    model = Many().double().eval()
    shrunk = check(model, vectors(20, 6), vectors(8, 6))  # 8 rows: 128 entries of 16 units, 64 of 8
    assert shrunk.model.a.out_features == 16
    assert shrunk.ranges == ("x.shape[0] ≥ 7",)
    assert any("the outputs differ" in reason for reason in shrunk.pinned)


class Twice(nn.Module):
    """One module that reads constants of two values, or of one."""

    def __init__(self, same):
        super().__init__()
        self.a, self.b, self.shared = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)
        zero(self.a.weight, range(4))
        zero(self.b.weight, range(4))
        if same:
            self.b.bias = self.a.bias

    def forward(self, x):
        return self.shared(torch.tanh(self.a(x))) + self.shared(torch.tanh(self.b(x))) ** 2


@pytest.mark.parametrize("same", [False, True])
def test_a_module_used_twice(same):
    shrunk = check(Twice(same).double(), vectors(2, 4), vectors(5, 4))
    assert shrunk.model.shared.in_features == (4 if same else 8)


class TiedBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.c.bias = self.b.bias
        zero(self.a.weight, range(4))

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.sigmoid(self.a(x)))))


def test_a_bias_that_is_tied_elsewhere_takes_nothing():
    shrunk = check(TiedBias().double(), vectors(2, 4), vectors(5, 4))
    assert shrunk.model.c.bias is shrunk.model.b.bias
    assert shrunk.plan.folds == ()
    assert shrunk.model.a.out_features == 5  # four that vary, and a carrier


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b, self.c = (
            nn.Parameter(torch.randn(8, 6)),
            nn.Parameter(torch.randn(8)),
            nn.Parameter(torch.zeros(6)),
        )
        zero(self.w, range(5))

    def forward(self, x):
        hidden = torch.tanh(nn.functional.linear(x, self.w, self.b))
        return nn.functional.linear(hidden, self.w.t(), self.c)


def test_functional_weights_and_their_transpose():
    shrunk = check(Autoencoder().double(), vectors(2, 6), vectors(5, 6))
    assert shrunk.model.w.shape == (3, 6)
    assert shrunk.model.b.shape == (3,)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(20, 12), nn.Linear(12, 20)
        self.out.weight = self.table.weight
        self.mix = nn.Linear(12, 12)
        zero(self.table.weight, range(6), dim=1)
        zero(self.mix.weight, range(6))
        zero(self.mix.bias, range(6))

    def forward(self, x):
        return self.out(self.table(x) + torch.relu(self.mix(self.table(x))))


def test_a_tied_embedding_stays_tied():
    model = Tied().double().eval()
    shrunk = check(model, torch.randint(0, 20, (2, 5)), torch.randint(0, 20, (3, 4)))
    assert shrunk.model.out.weight is shrunk.model.table.weight
    assert (shrunk.model.table.embedding_dim, shrunk.model.out.in_features) == (6, 6)


@pytest.mark.parametrize("kind", ["prune", "old weight_norm", "new weight_norm"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weights_that_are_computed(kind):
    first, second = nn.Linear(5, 10), nn.Linear(10, 3)
    if kind == "prune":
        prune.ln_structured(first, "weight", amount=0.6, n=2, dim=0)
    else:
        zero(second.weight, range(6), dim=1)
        norm = nn.utils.weight_norm if kind == "old weight_norm" else nn.utils.parametrizations.weight_norm
        first, second = norm(first), norm(second)
    model = model_of(first, nn.ReLU(), second)
    shrunk = check(model, vectors(2, 5), vectors(7, 5))
    assert shrunk.model[0].out_features == 4
    shrunk.model.train()(vectors(3, 5)).sum().backward()


def test_a_part_of_a_group_stays_and_a_whole_group_goes():
    def build(dead):
        model = model_of(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4))
        model.append(nn.ReLU()).append(nn.Conv2d(8, 2, 1)).double()
        zero(model[5].weight, dead, dim=1)
        return model

    assert check(build([0, 2, 5]), images(2), images(3)).model[0].out_channels == 8
    shrunk = check(build([0, 1, 4, 5, 6]), images(2), images(3, size=9)).model
    assert (shrunk[0].out_channels, shrunk[1].num_groups, shrunk[1].num_channels) == (4, 2, 4)
    assert (shrunk[3].groups, shrunk[3].in_channels, shrunk[3].out_channels) == (2, 4, 4)


def test_everything_dead_leaves_no_empty_dimension():
    model = model_of(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    for layer in model[::2]:
        zero(layer.weight, range(layer.out_features))
    shrunk = check(model, vectors(2, 4), vectors(5, 4))
    assert [layer.weight.shape for layer in shrunk.model[::2]] == [(1, 4), (1, 1), (3, 1)]


class Stages(nn.Module):
    """Two members of a stage, of a concatenation or of a chunk, with zeros at other places."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(3, 8, 1)
        self.c = nn.Conv1d({"sum": 8, "cat": 16, "chunk": 4}[kind], 2, 3, padding=1)
        for layer, dead in ((self.a, (0, 1, 2, 4, 5)), (self.b, (0, 1, 4, 7))):
            zero(layer.weight, dead)

    def forward(self, x):
        a, b = torch.sigmoid(self.a(x)), torch.sigmoid(self.b(x))
        if self.kind == "sum":
            return self.c(a + b)
        if self.kind == "cat":
            return self.c(torch.cat([a, b], 1))
        left, right = torch.cat([a, b], 1).chunk(4, 1)[::2]
        return self.c(left * right)


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("sum", 6 + 6),  # 0, 1 and 4 are constant in both, and one of them is the carrier
        ("cat", 3 + 4 + 1),  # three of the one and four of the other vary, and there is one carrier for both
        ("chunk", 6 + 6),  # 0 and 1 of all four pieces are constant or unread, and one is the carrier
    ],
)
def test_members_with_zeros_at_different_places(kind, left):
    model = Stages(kind).double().eval()
    shrunk = check(model, torch.randn(2, 3, 6).double(), torch.randn(3, 3, 9).double())
    assert shrunk.model.a.out_channels + shrunk.model.b.out_channels == left


class Loop(nn.Module):
    """Units 0 to 3 of a residual stream that feed each other, and that the output does not read."""

    def __init__(self):
        super().__init__()
        self.a, self.mix, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        with torch.no_grad():
            self.mix.weight[4:, :4] = 0
            self.out.weight[:, :4] = 0

    def forward(self, x):
        x = self.a(x)
        for _ in range(3):
            x = x + torch.tanh(self.mix(x))
        return self.out(x)


def test_units_that_only_feed_each_other_go():
    shrunk = check(Loop().double(), vectors(2, 4), vectors(5, 4))
    assert shrunk.model.mix.weight.shape == (4, 4)


def test_an_unknown_operator_pins_what_it_touches_and_says_where():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.sort(self.a(x)).values)))

    model = Sorted().double()
    zero(model.a.weight, range(4))
    zero(model.b.weight, range(4))
    shrunk = check(model, vectors(2, 4), vectors(5, 4))
    assert (shrunk.model.a.out_features, shrunk.model.b.out_features) == (8, 4)
    assert any("aten.sort at test_shrink.py:" in reason for reason in shrunk.pinned)


def test_what_the_layers_are_is_kept():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    zero(model[0].weight, range(4))
    model[0].bias.requires_grad_(False)
    model.train()
    model[4].eval()
    shrunk = ts.shrink(model, torch.randn(3, 4)).model
    assert [type(layer) for layer in shrunk] == [type(layer) for layer in model]
    assert [layer.training for layer in shrunk] == [layer.training for layer in model]
    assert shrunk[0].weight.requires_grad
    assert not shrunk[0].bias.requires_grad
    assert shrunk[0].weight.dtype == torch.float32
    optimizer = torch.optim.SGD([p for p in shrunk.parameters() if p.requires_grad], lr=0.1)
    before = shrunk[0].weight.clone()
    shrunk(torch.randn(6, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, shrunk[0].weight)


def test_inputs_that_nothing_reads_are_named():
    model = model_of(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    zero(model[0].weight, [1, 4], dim=1)
    with torch.no_grad():
        model[0].weight[3:, 2] = 0
    zero(model[2].weight, [0, 1, 2], dim=1)  # the only units that read input 2
    assert check(model, vectors(2, 6)).unread_inputs == (1, 2, 4)


def test_inputs_that_nothing_reads_go_where_that_is_asked_for():
    model = model_of(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    zero(model[0].weight, [1, 4], dim=1)
    x = vectors(5, 6)
    shrunk = ts.shrink(model, x, inputs=True)
    assert shrunk.plan.inputs == (0, 2, 3, 5)
    assert shrunk.model[0].in_features == 4
    assert shrunk.difference <= 1e-12
    assert (shrunk.model(x[:, shrunk.plan.inputs]) - model(x)).abs().max() <= 1e-12
    assert check(model, x).model[0].in_features == 6
    with pytest.raises(ts.errors.InputError, match="needs a model of one input"):
        ts.shrink(nn.Conv1d(3, 4, 1), torch.randn(2, 3, 5), inputs=True)


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (3, torch.randn(2, 4), "model is int"),
        (nn.Linear(4, 2), "x", "example is str without a tensor"),
        (nn.Linear(4, 2), torch.randn(2, 5), "torch.export cannot trace Linear"),
    ],
)
def test_bad_input_is_one_line(model, example, message):
    with pytest.raises(ts.errors.InputError, match=message) as caught:
        ts.shrink(model, example)
    assert "\n" not in str(caught.value)


def test_a_model_that_branches_on_numbers_is_refused_with_the_place():
    class Branch(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(ts.errors.InputError, match=r"cannot trace Branch \(at test_shrink.py:\d+\)"):
        ts.shrink(Branch(), torch.randn(2, 4))


class Several(nn.Module):
    """Two inputs, by name; a dict of outputs; a head that only training uses; spectral numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)
        self.auxiliary = nn.Linear(8, 6)
        self.register_buffer("shift", torch.randn(8))
        zero(self.a.weight, range(5))
        zero(self.b.weight, range(5))

    def forward(self, left, right, *, scale=2.0):
        y = torch.tanh(self.a(left) * self.b(right) + self.shift) * scale
        outputs = {"y": self.c(y), "spectrum": torch.fft.rfft(left), "most": self.c(y).argmax(1)}
        return outputs | {"auxiliary": self.auxiliary(y)} if self.training else outputs


def test_several_inputs_and_outputs():
    model = Several()
    example = {"left": torch.randn(1, 4), "right": torch.randn(1, 3)}
    shrunk = ts.shrink(model, example)
    assert shrunk.difference <= 1e-12
    assert (shrunk.model.a.out_features, shrunk.model.c.in_features, shrunk.model.shift.shape) == (3, 3, (3,))
    wanted, found = model.eval()(**example), shrunk.model.eval()(**example)
    assert all(torch.allclose(wanted[name], found[name], atol=1e-6) for name in wanted)


def test_a_head_that_only_training_uses_stays():
    shrunk = ts.shrink(Several(), (torch.randn(2, 4), torch.randn(2, 3)))
    assert shrunk.model.auxiliary.weight.shape == (6, 8)
    assert shrunk.pinned["not used in evaluation mode"] > 0


@pytest.mark.parametrize("kind", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.orthogonal])
def test_parametrizations_without_a_rule_stay(kind):
    model = model_of(kind(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    zero(model[2].weight, range(4))
    shrunk = check(model, vectors(2, 6), vectors(4, 6))
    assert (shrunk.model[0].out_features, shrunk.model[2].out_features) == (8, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_are_kept_and_agree_up_to_rounding(dtype):
    model = nn.Sequential(nn.Linear(6, 32), nn.Sigmoid(), nn.Linear(32, 4, bias=False)).to(dtype)
    zero(model[0].weight, range(24))
    shrunk = ts.shrink(model, torch.randn(2, 6, dtype=dtype))
    assert [p.dtype for p in shrunk.model.parameters()] == [dtype] * 4
    assert shrunk.difference <= 1e-12
    x = torch.randn(9, 6, dtype=dtype)
    assert (shrunk.model(x) - model(x)).abs().max() <= 40 * torch.finfo(dtype).eps


def test_a_model_that_is_random_is_refused():
    class Random(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x)

    with pytest.raises(ts.errors.InputError, match="Random does not compute the same twice"):
        ts.shrink(Random(), torch.randn(20, 4))


def test_control_flow_of_torch_stays_as_it_is():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
            zero(self.a.weight, range(4))

        def forward(self, x):
            y = self.a(x)
            return torch.cond(y.sum() > 0, lambda z: self.b(z.relu()), lambda z: self.b(z.tanh()), (y,))

    shrunk = check(Conditional().double(), vectors(2, 4), vectors(5, 4))
    assert shrunk.model.a.out_features == 8
    assert shrunk.operations == (0, 0)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_stays(number):
    model = model_of(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))
    zero(model[0].weight, range(4))
    with torch.no_grad():
        model[2].weight[0, 0] = number
    shrunk = ts.shrink(model, vectors(2, 4))
    assert shrunk.model[0].out_features == 8
    assert any("not finite" in reason for reason in shrunk.pinned)


def test_complex_weights_stay():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8, dtype=torch.cfloat), nn.Linear(8, 2, dtype=torch.cfloat)
            zero(self.a.weight, range(4))

        def forward(self, x):
            return self.b(self.a(torch.complex(x, x))).abs()

    shrunk = ts.shrink(Complex(), torch.randn(3, 4))
    assert shrunk.model.a.out_features == 8
    assert any("not real" in reason for reason in shrunk.pinned)


def test_a_terminal_shows_how_far_it_is_and_a_file_does_not(monkeypatch):
    said = {}
    for terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr("sys.stderr", stream)
        ts.shrink(nn.Linear(3, 2), torch.randn(2, 3))
        said[terminal] = stream.getvalue()
    assert "shrink:" in said[True]
    assert "3" in said[True]
    assert said[False] == ""
