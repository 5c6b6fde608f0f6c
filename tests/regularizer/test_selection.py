import copy
import pathlib
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from torchshrink.errors import InputError, SelectionError, SelectionWarning
from torchshrink.penalties import L1, L2
from torchshrink.regularizer.selection import ALL, WEIGHTS, Choice, select

W = ""  # a weight: penalised
B = "bias"
N = "normalisation weight"
R1 = "raw 1-d parameter"
R0 = "raw 0-d parameter"


def raw(*shape):
    return nn.Parameter(torch.ones(shape))


class Holding(nn.Module):
    """A custom module that owns just what it is given."""

    def __init__(self, **members):
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)


class RMSNorm(Holding):
    pass


class T5LayerNorm(Holding):
    pass


class ChannelNorm2d(Holding):
    pass


class NormalizedLinear(Holding):
    pass


class Scale(Holding):
    pass


class AdaptiveNorm(nn.LayerNorm):
    def __init__(self):
        super().__init__(3)
        self.mix = raw(3, 3)


def old_weight_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still everywhere
        return nn.utils.weight_norm(module)


def old_spectral_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(module)


def tied():
    model = nn.ModuleDict({"embedding": nn.Embedding(7, 3), "body": nn.Linear(3, 3), "head": nn.Linear(3, 7)})
    model["head"].weight = model["embedding"].weight
    return model


def frozen_body():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    return model


def reasons(choices):
    return {choice.name: choice.reason for choice in choices}


def rules_by_name(choices):
    return {choice.name: choice.rule for choice in choices}


def encoder_model():
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 3)),
            "head": nn.Linear(3, 2),
        }
    )


TABLES = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)),
        {"0.weight": W, "0.bias": B, "2.weight": W, "2.bias": B},
    ),
    "linear with one input and one output": (lambda: nn.Linear(1, 1), {"weight": W, "bias": B}),
    "convolution and batch norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose1d(4, 4, 1)),
        {"0.weight": W, "0.bias": B, "1.weight": N, "1.bias": B, "2.weight": W, "2.bias": B},
    ),
    "lstm": (
        lambda: nn.LSTM(4, 3, proj_size=2),
        {"weight_ih_l0": W, "weight_hh_l0": W, "bias_ih_l0": B, "bias_hh_l0": B, "weight_hr_l0": W},
    ),
    "gru cell": (
        lambda: nn.GRUCell(4, 3),
        {"weight_ih": W, "weight_hh": W, "bias_ih": B, "bias_hh": B},
    ),
    "transformer encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1, norm=nn.LayerNorm(4)),
        {
            "layers.0.self_attn.in_proj_weight": W,
            "layers.0.self_attn.in_proj_bias": B,
            "layers.0.self_attn.out_proj.weight": W,
            "layers.0.self_attn.out_proj.bias": B,
            "layers.0.linear1.weight": W,
            "layers.0.linear1.bias": B,
            "layers.0.linear2.weight": W,
            "layers.0.linear2.bias": B,
            "layers.0.norm1.weight": N,
            "layers.0.norm1.bias": B,
            "layers.0.norm2.weight": N,
            "layers.0.norm2.bias": B,
            "norm.weight": N,
            "norm.bias": B,
        },
    ),
    "multi-head attention, all its options": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True, kdim=3, vdim=3),
        {
            "q_proj_weight": W,
            "k_proj_weight": W,
            "v_proj_weight": W,
            "in_proj_bias": B,
            "bias_k": B,
            "bias_v": B,
            "out_proj.weight": W,
            "out_proj.bias": B,
        },
    ),
    "torch's norms": (
        lambda: nn.Sequential(
            nn.Linear(2, 4, bias=False),
            nn.RMSNorm(4),
            nn.LayerNorm((2, 2)),
            nn.GroupNorm(2, 4),
            nn.InstanceNorm1d(4, affine=True),
            nn.SyncBatchNorm(4),
        ),
        {"0.weight": W, "1.weight": N, "2.weight": N, "2.bias": B, "3.weight": N, "3.bias": B}
        | {"4.weight": N, "4.bias": B, "5.weight": N, "5.bias": B},
    ),
    "custom norms": (
        lambda: nn.Sequential(
            nn.Linear(2, 2),
            RMSNorm(scale=raw(2)),
            T5LayerNorm(weight=raw(2)),
            ChannelNorm2d(gamma=raw(1, 2, 1, 1), beta_bias=raw(1, 2, 1, 1)),
            AdaptiveNorm(),
        ),
        {"0.weight": W, "0.bias": B, "1.scale": N, "2.weight": N, "3.gamma": N, "3.beta_bias": B}
        | {"4.weight": N, "4.bias": B, "4.mix": W},
    ),
    "a linear layer whose class has norm in its name": (
        lambda: nn.Sequential(NormalizedLinear(weight=raw(3, 2)), NormalizedLinear(weight=raw(1, 2))),
        {"0.weight": W, "1.weight": W},
    ),
    "raw parameters and PReLU": (
        lambda: nn.Sequential(
            nn.Linear(2, 3), nn.PReLU(3), Scale(gain=raw(3), experts=raw(2, 3, 3), temperature=raw())
        ),
        {"0.weight": W, "0.bias": B, "1.weight": R1, "2.gain": R1, "2.experts": W, "2.temperature": R0},
    ),
    "parameter lists and dictionaries": (
        lambda: Holding(
            maps=nn.ParameterList([raw(2, 2), raw(2)]),
            biases=nn.ParameterList([raw(2, 2)]),
            gates=nn.ParameterDict({"input": raw(2, 2), "input_bias": raw(2, 2)}),
        ),
        {"maps.0": W, "maps.1": R1, "biases.0": B, "gates.input": W, "gates.input_bias": B},
    ),
    "bias is a word, not a part of one": (
        lambda: Holding(unbiased=raw(2, 2), relative_position_bias_table=raw(2, 2)),
        {"unbiased": W, "relative_position_bias_table": B},
    ),
    "an embedding with bias in its name is an embedding": (
        lambda: Holding(relative_attention_bias=nn.Embedding(4, 2)),
        {"relative_attention_bias.weight": W},
    ),
    "tied": (tied, {"embedding.weight": W, "body.weight": W, "body.bias": B, "head.bias": B}),
    "frozen": (frozen_body, {"0.weight": "frozen", "0.bias": "frozen", "1.weight": W, "1.bias": B}),
    "bilinear and embedding bag": (
        lambda: nn.ModuleList([nn.Bilinear(2, 2, 2), nn.EmbeddingBag(4, 2)]),
        {"0.weight": W, "0.bias": B, "1.weight": W},
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_default_selection(case):
    build, expected = TABLES[case]
    model, penalty = build(), L2(0.1)
    choices = select(model, penalty)
    assert reasons(choices) == expected
    for choice in choices:
        assert choice.penalty is (None if choice.reason else penalty)
        assert choice.rule == ("" if choice.reason else "default")
    # Model order, each tensor once, and the tensors themselves.
    assert [(c.name, id(c.parameter)) for c in choices] == [(n, id(p)) for n, p in model.named_parameters()]


@pytest.mark.parametrize("case", TABLES)
def test_all_is_every_trainable_parameter(case):
    model = TABLES[case][0]()
    choices = select(model, L2(0.1), on=ALL)
    expected = [(n, id(p)) for n, p in model.named_parameters() if p.requires_grad]
    assert [(c.name, id(c.parameter)) for c in choices if c.penalty] == expected
    assert {c.reason for c in choices} <= {"", "frozen"}


@pytest.mark.parametrize("case", TABLES)
def test_meta_tensors_will_do(case):
    build, expected = TABLES[case]
    with torch.device("meta"):
        assert reasons(select(build().to("meta"), L2(0.1))) == expected


def test_flattened_shard_of_a_layer_is_still_a_weight():
    layer = nn.Linear(4, 3)
    layer.weight = raw(12)  # as some sharding wrappers leave it
    assert reasons(select(layer, L2(0.1))) == {"weight": W, "bias": B}


def test_gain_in_a_layer_derived_from_torchs_is_a_raw_parameter():
    layer = nn.Linear(4, 3, bias=False)
    layer.gain = raw(3)
    assert reasons(select(layer, L2(0.1))) == {"weight": W, "gain": R1}


def test_choice_is_a_frozen_value_with_kind_and_owner():
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.LayerNorm(2), Scale(gain=raw(2)))
    choices = select(model, L2(0.1))
    assert [choice.kind for choice in choices] == ["embedding", "weight", "bias", "normalisation", "bias", "raw"]
    assert [type(choice.owner).__name__ for choice in choices] == [
        *("Embedding", "Linear", "Linear", "LayerNorm", "LayerNorm", "Scale")
    ]
    assert isinstance(choices[0], Choice)
    with pytest.raises(AttributeError):
        choices[0].penalty = None


# Tied tensors


def test_tied_tensor_is_one_choice_with_its_aliases():
    choices = {choice.name: choice for choice in select(tied(), L2(0.1))}
    assert choices["embedding.weight"].aliases == ("head.weight",)
    assert choices["body.weight"].aliases == ()


@pytest.mark.parametrize("pattern", ["head.weight", "head.*", nn.Linear, "embedding.weight", nn.Embedding])
def test_tied_tensor_is_matched_under_any_name(pattern):
    choices = {choice.name: choice for choice in select(tied(), {pattern: L1(0.1)})}
    assert choices["embedding.weight"].penalty == L1(0.1)


def test_one_module_under_two_names_and_a_reference_to_above():
    child = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": child, "b": child})
    child.above = model
    choices = select(model, {"b.weight": L2(0.1)})
    assert [(c.name, c.aliases, c.rule) for c in choices] == [
        ("a.weight", ("b.weight",), "b.weight"),
        ("a.bias", ("b.bias",), ""),
    ]


def test_weight_in_one_place_is_a_weight():
    layer = nn.Linear(2, 2, bias=False)
    model = Holding(shared_bias=layer.weight, layer=layer)
    assert [(c.name, c.aliases, c.reason, c.kind) for c in select(model, L2(0.1))] == [
        ("shared_bias", ("layer.weight",), W, "weight")
    ]


# Rules


def test_first_rule_wins_and_none_exempts():
    rules = {"encoder.0.*": None, "encoder.*": L2(0.1), nn.Linear: L1(0.2)}
    choices = select(encoder_model(), rules)
    assert {c.name: (c.penalty, c.rule, c.reason) for c in choices} == {
        "encoder.0.weight": (None, "encoder.0.*", "exempted by rule"),
        "encoder.0.bias": (None, "encoder.0.*", "exempted by rule"),
        "encoder.1.weight": (None, "", N),
        "encoder.1.bias": (None, "", B),
        "encoder.2.weight": (L2(0.1), "encoder.*", ""),
        "encoder.2.bias": (None, "", B),
        "head.weight": (L1(0.2), "type:Linear", ""),
        "head.bias": (None, "", B),
    }


def test_what_no_rule_matches_is_exempt():
    choices = select(encoder_model(), {"head.*": L2(0.1)})
    assert {c.reason for c in choices if c.name.startswith("encoder")} == {"no rule matches"}


def test_exact_name_selects_whatever_on_says_even_after_a_glob():
    rules = {"*": L2(0.1), "head.bias": L1(0.2), "encoder.1.weight": L1(0.3)}
    penalised = {c.name: c.penalty for c in select(encoder_model(), rules, on=WEIGHTS) if c.penalty}
    assert penalised == {
        "encoder.0.weight": L2(0.1),
        "encoder.1.weight": L1(0.3),
        "encoder.2.weight": L2(0.1),
        "head.weight": L2(0.1),
        "head.bias": L1(0.2),
    }


def test_globs_act_on_everything_with_all():
    choices = select(encoder_model(), {"*.bias": L1(0.1), "*": L2(0.2)}, on=ALL)
    assert {c.penalty for c in choices if c.name.endswith("bias")} == {L1(0.1)}
    assert {c.penalty for c in choices if not c.name.endswith("bias")} == {L2(0.2)}


def test_globs_tell_case():
    model = nn.ModuleDict({"Head": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert rules_by_name(select(model, {"h*.weight": L2(0.1)}))["Head.weight"] == ""


def test_class_patterns_are_of_the_direct_owner():
    model = nn.TransformerEncoderLayer(4, 2, 8)
    choices = select(model, {nn.MultiheadAttention: L1(0.1), nn.Linear: L2(0.1)})
    by_name = rules_by_name(choices)
    assert by_name["self_attn.in_proj_weight"] == "type:MultiheadAttention"
    assert by_name["self_attn.out_proj.weight"] == "type:Linear"  # derived from it, and owned by the projection


def test_type_strings_are_classes_by_name():
    model = encoder_model()
    by_class = select(model, {nn.LayerNorm: None, nn.Linear: L2(0.1)})
    by_name = select(model, {"type:LayerNorm": None, "type:Linear": L2(0.1)})
    assert [(c.name, c.rule, c.reason) for c in by_class] == [(c.name, c.rule, c.reason) for c in by_name]


def test_class_pattern_sees_through_parameter_lists():
    model = Holding(maps=nn.ParameterList([raw(2, 2)]))
    assert rules_by_name(select(model, {Holding: L2(0.1)})) == {"maps.0": "type:Holding"}
    assert rules_by_name(select(model, {nn.ParameterList: L2(0.1)})) == {"maps.0": "type:ParameterList"}


def test_names_with_glob_letters_match_themselves():
    model = nn.ParameterDict({"a[0]": raw(2, 2)})
    assert rules_by_name(select(model, {"a[0]": L2(0.1)})) == {"a[0]": "a[0]"}


def test_rules_that_only_exempt_are_allowed():
    choices = select(encoder_model(), {"*": None})
    assert {c.reason for c in choices} == {"exempted by rule"}


@pytest.mark.parametrize(
    "rules",
    [
        {"*": L2(0.1), "*.bias": None},  # says what WEIGHTS does anyway
        {"*": L2(0.1), nn.LayerNorm: None},
        {nn.LayerNorm: None, "encoder.1.weight": None, "*": L2(0.1)},  # twice exempt
        {"head.*": L1(0.1), "*": L2(0.1)},  # partly taken is what order is for
    ],
)
def test_harmless_overlaps_are_silent(rules):
    select(encoder_model(), rules)


def test_frozen_parameters_may_be_exempted_without_a_word():
    assert reasons(select(frozen_body(), {"0.*": None, "*": L2(0.1)}))["0.weight"] == "frozen"


def test_selection_changes_nothing():
    model = encoder_model()
    before = copy.deepcopy(model.state_dict())
    select(model, L2(0.1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


# Reparametrised quantities


REPARAMETRISED = {
    "weight_norm": (
        lambda: parametrizations.weight_norm(nn.Linear(3, 2)),
        {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"},
        "reparametrised: _WeightNorm computes 'weight' from it",
    ),
    "spectral_norm": (
        lambda: parametrizations.spectral_norm(nn.Linear(3, 2)),
        {"0.parametrizations.weight.original"},
        "reparametrised: _SpectralNorm computes 'weight' from it",
    ),
    "older weight_norm": (
        lambda: old_weight_norm(nn.Linear(3, 2)),
        {"0.weight_g", "0.weight_v"},
        "reparametrised: weight_norm computes 'weight' from it",
    ),
    "older spectral_norm": (
        lambda: old_spectral_norm(nn.Linear(3, 2)),
        {"0.weight_orig"},
        "reparametrised: spectral_norm computes 'weight' from it",
    ),
    "prune": (
        lambda: prune.l1_unstructured(nn.Linear(3, 2), "weight", 2),
        {"0.weight_orig"},
        "reparametrised: prune computes 'weight' from it",
    ),
}


@pytest.mark.parametrize("case", REPARAMETRISED)
def test_originals_are_not_weights(case):
    build, originals, reason = REPARAMETRISED[case]
    model = nn.Sequential(build(), nn.Linear(2, 2))
    with pytest.warns(SelectionWarning, match="not penalised, since weights are only computed from them") as caught:
        choices = select(model, L2(0.1))
    assert len(caught) == 1
    assert all(name in str(caught[0].message) for name in originals)
    assert reasons(choices) == {"0.bias": B, "1.weight": W, "1.bias": B} | dict.fromkeys(originals, reason)
    assert {c.kind for c in choices if c.name in originals} == {"reparametrised"}


@pytest.mark.parametrize("case", REPARAMETRISED)
def test_originals_by_rule_are_silent(case):
    build, originals, _ = REPARAMETRISED[case]
    model = nn.Sequential(build(), nn.Linear(2, 2))
    exempted = select(model, {"0.*": None, "*": L2(0.1)})
    assert {c.reason for c in exempted if c.name in originals} == {"exempted by rule"}
    named = select(model, dict.fromkeys(sorted(originals), L1(0.1)) | {"*": L2(0.1)})
    assert {c.name for c in named if c.penalty == L1(0.1)} == originals
    untouched = select(model, {"1.*": L2(0.1)})
    assert {c.reason for c in untouched if c.name in originals} == {"no rule matches"}
    everything = select(model, L2(0.1), on=ALL)
    assert all(c.penalty for c in everything)
    assert [c.name for c in everything] == [name for name, _ in model.named_parameters()]


def test_class_rule_matches_the_module_under_a_parametrization():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    choices = select(model, {nn.Linear: None})
    assert {c.reason for c in choices} == {"exempted by rule"}
    assert choices[1].owner is model[0]


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up, self.gain = raw(3, 1), raw(1, 3), raw(3)

    def forward(self, weight):
        return weight + self.down @ self.up * self.gain


def test_parameters_of_a_parametrization_are_ingredients_too():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    parametrize.register_parametrization(model[0], "weight", LowRank())
    with pytest.warns(SelectionWarning, match=r"parametrizations\.weight\.0\.down"):
        choices = select(model, L2(0.1))
    assert [c.name for c in choices if c.penalty] == ["1.weight"]
    named = select(model, {"0.parametrizations.weight.0.down": L1(0.1)})
    assert [c.name for c in named if c.penalty] == ["0.parametrizations.weight.0.down"]


def test_parametrized_biases_and_gains_need_no_warning():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    parametrize.register_parametrization(model[0], "bias", nn.Softplus(), unsafe=True)
    parametrize.register_parametrization(model[1], "weight", nn.Softplus(), unsafe=True)
    prune.l1_unstructured(model[1], "bias", 1)
    assert reasons(select(model, L2(0.1))) == {
        "0.weight": W,
        "0.parametrizations.bias.original": B,
        "1.bias_orig": B,
        "1.parametrizations.weight.original": N,
    }


def test_only_originals_is_nothing_to_penalise():
    model = parametrizations.weight_norm(nn.Linear(3, 2))
    refused(model, L2(0.1), "nothing to penalise with on=ts.WEIGHTS", "2 reparametrised", "on=ts.ALL")


def test_suffixes_alone_are_not_a_parametrization():
    model = Holding(weight_g=raw(2, 2), weight_orig=raw(2, 2))
    assert reasons(select(model, L2(0.1))) == {"weight_g": W, "weight_orig": W}


# Errors and warnings


def refused(model, rules, *parts, on=WEIGHTS, error=SelectionError):
    with pytest.raises(error) as caught:
        select(model, rules, on=on)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize(
    ("pattern", "guess"),
    [
        ("encodr.*", "encoder.*"),
        ("encodr.*.weight", "encoder.*.weight"),
        ("encoder.*.weigth", "encoder.*.weight"),
        ("Encoder.0.weight", "encoder.0.weight"),
        ("haed.bias", "head.bias"),
        ("head", "head.*"),
        ("hed", "head.*"),
        ("bias", "*.bias"),
        ("0.weight", "*.0.weight"),
        ("Linear", "type:Linear"),
        ("type:Linaer", "type:Linear"),
        ("type:nn.Linear", "type:Linear"),
    ],
)
def test_typing_error_suggests_the_right_pattern(pattern, guess):
    for penalty in (L2(0.1), None):
        refused(
            encoder_model(), {pattern: penalty}, f"rule {pattern!r} matches no parameter", f"did you mean {guess!r}?"
        )


def test_suggestion_for_a_class_that_is_not_there():
    refused(encoder_model(), {nn.LazyLinear: L2(0.1)}, "'type:LazyLinear' matches no", "did you mean 'type:Linear'?")
    refused(
        encoder_model(), {nn.Embedding: None}, "rule 'type:Embedding' matches no parameter: the model's classes are"
    )


def test_class_that_owns_no_parameters_points_to_its_children():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)
    for pattern in (nn.TransformerEncoderLayer, "type:TransformerEncoderLayer"):
        refused(model, {pattern: L2(0.1)}, "a TransformerEncoderLayer owns none itself", "'layers.0.*'")


def test_another_class_of_the_same_name():
    namesake = type("Scale", (nn.Module,), {})  # as after reloading a module
    refused(Scale(gain=raw(2)), {namesake: L2(0.1)}, "the model's Scale is another class of that name", "'type:Scale'")


def test_nothing_alike_lists_what_there_is():
    refused(encoder_model(), {"zzz*": L2(0.1)}, "the model's parameters are 'encoder.0.weight'", "and 5 more")
    refused(nn.ReLU(), {"zzz*": L2(0.1)}, "the model has no parameters")


def test_rule_named_default_is_no_exception():
    refused(encoder_model(), {"default": L2(0.1)}, "rule 'default' matches no parameter")


@pytest.mark.parametrize("pattern", ["*.bias", "type:LayerNorm", nn.LayerNorm, "encoder.1.*"])
def test_rule_for_what_on_leaves_out(pattern):
    refused(
        encoder_model(),
        {pattern: L2(0.1)},
        "matches only what on=ts.WEIGHTS leaves out",
        "pass on=ts.ALL",
        "exact name",
    )
    assert any(choice.penalty for choice in select(encoder_model(), {pattern: L2(0.1)}, on=ALL))


def test_rule_for_what_is_reparametrised_says_so():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    refused(model, {"0.*": L1(0.1), "1.*": L2(0.1)}, "_WeightNorm computes 'weight' from it", "exact name")


@pytest.mark.parametrize(
    ("rules", "late", "early"),
    [
        ({"*": L2(0.1), "head.*": L1(0.1)}, "head.*", "*"),
        ({"*": L2(0.1), "head.*": None}, "head.*", "*"),  # it would still exempt the bias, but not what it is for
        ({nn.Linear: L2(0.1), "head.weight": L1(0.1)}, "head.weight", "type:Linear"),
        ({"head.*": None, "head.weight": L1(0.1), "*": L2(0.1)}, "head.weight", "head.*"),
        ({"head.bias": L1(0.1), "head.b*": None}, "head.b*", "head.bias"),
    ],
)
def test_rule_that_comes_too_late(rules, late, early):
    message = f"rule {late!r} comes too late: {early!r} already took all"
    refused(encoder_model(), rules, message, "'head.", "put it earlier")


@pytest.mark.parametrize("pattern", ["1.*", "*1.weight", "[1].weight", nn.BatchNorm2d])
@pytest.mark.parametrize("others", [{}, {"*": None}, {"0.*": L2(0.1)}], ids=["alone", "exempt", "another"])
def test_a_rule_for_what_is_left_out_says_so_whatever_stands_beside_it(pattern, others):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(SelectionError, match=r"matches only what on=ts.WEIGHTS leaves out.*exact name"):
        select(model, {pattern: L1(0.1), **others})
    assert select(model, {"1.weight": L1(0.1), **others})[2].penalty == L1(0.1)


def test_rule_for_frozen_parameters_warns():
    message = "rule '0.*' penalises nothing: '0.weight' is frozen (requires_grad=False); unfreeze"
    with pytest.warns(SelectionWarning, match=re.escape(message)):
        choices = select(frozen_body(), {"0.*": L1(0.1), "1.*": L2(0.1)})
    assert reasons(choices)["0.weight"] == "frozen"
    with pytest.warns(SelectionWarning, match="'0.bias' is frozen"):
        select(frozen_body(), {"0.bias": L1(0.1), "1.*": L2(0.1)})


def test_warning_points_at_the_line_that_binds():
    def bind():  # as Regularizer does
        select(frozen_body(), {"0.*": L1(0.1), "1.*": L2(0.1)})

    with pytest.warns(SelectionWarning) as caught:
        bind()
    line = pathlib.Path(caught[0].filename).read_text(encoding="utf-8").splitlines()[caught[0].lineno - 1]
    assert line.strip() == "bind()"


def test_frozen_parameters_need_no_warning_by_default():
    select(frozen_body(), L2(0.1))  # warnings are errors here


def test_nothing_to_penalise():
    norm = nn.Sequential(nn.LayerNorm(3), Scale(gain=raw(3)))
    refused(
        norm,
        L2(0.1),
        "nothing to penalise with on=ts.WEIGHTS: the model's parameters are",
        "1 normalisation weight, 1 bias, 1 raw 1-d parameter",
        "pass on=ts.ALL",
    )
    refused(nn.ReLU(), L2(0.1), "nothing to penalise: the model has no parameters")
    frozen = nn.Linear(2, 2).requires_grad_(False)
    refused(frozen, L2(0.1), "2 frozen", "unfreeze", on=ALL)
    refused(frozen, {"*": L2(0.1)}, "nothing to penalise: rule '*'", "'weight' is frozen", "unfreeze")
    refused(frozen, L2(0.1), "nothing to penalise: rule 'w*'", "'weight' is frozen", "unfreeze", on="w*")


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embedding_is_refused_unless_exempt(kind):
    model = nn.ModuleDict({"table": kind(5, 2, sparse=True), "head": nn.Linear(2, 2)})
    for on in (WEIGHTS, ALL):
        refused(
            model, L2(0.1), "'table.weight' (5, 2)", "sparse=True", "sparse=False", "{'table.weight': None, …}", on=on
        )
    assert reasons(select(model, {kind: None, "*": L2(0.1)}))["table.weight"] == "exempted by rule"
    assert reasons(select(model, {"head.*": L2(0.1)}))["table.weight"] == "no rule matches"


def test_sparse_embedding_is_refused_under_its_tied_name():
    model = nn.ModuleDict({"head": nn.Linear(2, 5), "table": nn.Embedding(5, 2, sparse=True)})
    model["table"].weight = model["head"].weight
    refused(model, {"head.weight": L2(0.1)}, "'head.weight' (5, 2)", "sparse=True")


def test_lazy_parameters_are_refused():
    refused(
        nn.Sequential(nn.LazyLinear(3)), L2(0.1), "'0.weight' of LazyLinear has no shape yet", "one forward pass first"
    )


def test_complex_parameters_are_refused_unless_exempt():
    model = Holding(spectrum=nn.Parameter(torch.ones(2, 2, dtype=torch.complex64)), head=nn.Linear(2, 2))
    refused(model, L2(0.1), "'spectrum' (2, 2) is complex (torch.complex64)", "{'spectrum': None, …}")
    assert reasons(select(model, {"spectrum": None, "*": L2(0.1)}))["head.weight"] == W


@pytest.mark.parametrize(
    ("rules", "part"),
    [
        ("l2", "rules: str 'l2' given, a penalty such as ts.L2(1e-4) or a mapping"),
        (None, "rules: NoneType None given"),
        (0.1, "rules: float 0.1 given"),
        ([("*", L2(0.1))], "rules: list"),
        (L2, "rules: the class L2 given; give it a strength, as in L2(1e-4)"),
        ({"*": "l2"}, "rule '*': str 'l2' given, a penalty such as ts.L2(1e-4) or None (exempt) expected"),
        ({"*": 0.1}, "rule '*': float 0.1 given"),
        ({"*": L2}, "rule '*': the class L2; give it a strength, as in L2(1e-4)"),
        ({0: L2(0.1)}, "rules: pattern int 0; expected a glob, a module class or 'type:ClassName'"),
        ({int: L2(0.1)}, "rules: pattern the class int; expected a glob"),
        (nn.Sequential(nn.ReLU()), "rules: Sequential Sequential( (0): ReLU() ) given"),
        ("l" * 99, f"rules: str '{'l' * 58}… given"),
        ({nn.ReLU(): L2(0.1)}, "rules: pattern ReLU ReLU(); expected a glob"),
        ({}, "rules: an empty mapping; expected at least one pattern"),
    ],
)
def test_rules_of_the_wrong_type(rules, part):
    refused(nn.Linear(2, 2), rules, part, error=InputError)


def test_model_and_on_of_the_wrong_type():
    refused(nn.Linear, L2(0.1), "model: the class Linear given, an nn.Module expected", error=InputError)
    refused([raw(2, 2)][:0], L2(0.1), "model: list [] given", error=InputError)
    for on, given in ((3, "int 3"), ([], "list []"), (["w*", 3], "list ['w*', 3]"), (int, "the class int")):
        refused(nn.Linear(2, 2), L2(0.1), f"on: {given} given, ts.WEIGHTS or ts.ALL expected", on=on, error=InputError)
    rules = {"weight": L2(0.1)}
    refused(nn.Linear(2, 2), rules, "patterns in `on` are for one penalty", on="w*", error=InputError)


@pytest.mark.parametrize(
    ("on", "same"),
    [
        ("weights", (L2(0.1), WEIGHTS)),
        ("all", (L2(0.1), ALL)),
        ("0.*", ({"0.*": L2(0.1)}, WEIGHTS)),
        (("0.bias", nn.Linear), ({"0.bias": L2(0.1), nn.Linear: L2(0.1)}, WEIGHTS)),
    ],
)
def test_a_word_or_patterns_in_on_are_short_for_rules(on, same):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    short, long = select(model, L2(0.1), on), select(model, *same)
    assert [each.penalty for each in short] == [each.penalty for each in long]
    assert any(each.penalty for each in short)


def test_selection_is_printed_as_it_is_written():
    assert (repr(WEIGHTS), str(ALL)) == ("ts.WEIGHTS", "ts.ALL")
