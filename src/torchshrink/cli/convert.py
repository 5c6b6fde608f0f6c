"""``torchshrink convert``: one library's strength as another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchshrink.cli import console, options
from torchshrink.errors import InputError

if TYPE_CHECKING:
    from torchshrink.conversions.convert import Conversion

_STRENGTHS, _FACTS, _CHOICES = "The source's strengths", "The data", "What else matters"


def _number(flag: str, panel: str, help: str) -> Any:
    return typer.Option(flag, metavar="NUMBER", rich_help_panel=panel, show_default=False, help=help)


def _count(flag: str, help: str) -> Any:
    return typer.Option(flag, metavar="COUNT", rich_help_panel=_FACTS, show_default=False, help=help)


From = Annotated[
    str | None,
    options.option("--from", "TOOL", "The tool to convert from, such as sklearn.Ridge."),
]
To = Annotated[str, options.option("--to", "TOOL", "The tool to convert to.", default=True)]
List = Annotated[bool, options.option("--list", "", "The tools, what each minimises and what it takes.")]
Other = Annotated[
    list[str] | None,
    typer.Option(
        "--to-set",
        metavar="NAME=VALUE",
        rich_help_panel=_CHOICES,
        show_default=False,
        help="What holds for --to alone, such as solver=lbfgs. May be repeated.",
    ),
]
Solver = Annotated[
    str | None,
    typer.Option("--solver", metavar="NAME", rich_help_panel=_CHOICES, show_default=False, help="scikit-learn's."),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        rich_help_panel=_CHOICES,
        show_default=False,
        help="What torch or Keras trains on: mean over rows (default), half_mse, mse_sum, log_loss_sum.",
    ),
]
Decoupled = Annotated[
    bool | None,
    typer.Option(
        "--decoupled-weight-decay/--coupled",
        metavar="",
        rich_help_panel="Of torch.Adam, NAdam and RAdam",  # its names leave no room for others beside them
        show_default=False,
        help="How they decay weights.",
    ),
]


def convert(
    from_: From = None,
    to: To = "torchshrink",
    list_: List = False,
    json: options.Json = False,
    C: Annotated[float | None, _number("--C", _STRENGTHS, "scikit-learn's inverse strength.")] = None,
    alpha: Annotated[float | None, _number("--alpha", _STRENGTHS, "A strength; glmnet's share of L1.")] = None,
    l1_ratio: Annotated[float | None, _number("--l1-ratio", _STRENGTHS, "scikit-learn's share of L1.")] = None,
    lambda_: Annotated[float | None, _number("--lambda", _STRENGTHS, "glmnet's strength.")] = None,
    l1: Annotated[float | None, _number("--l1", _STRENGTHS, "Of Σ|w|.")] = None,
    l2: Annotated[float | None, _number("--l2", _STRENGTHS, "Of Σw², without ½.")] = None,
    group: Annotated[float | None, _number("--group", _STRENGTHS, "Of torchshrink's GroupLasso.")] = None,
    weight_decay: Annotated[float | None, _number("--weight-decay", _STRENGTHS, "An optimizer's.")] = None,
    rows: Annotated[int | None, _count("--rows", "Training rows.")] = None,
    outputs: Annotated[int | None, _count("--outputs", "The model's outputs: targets, or logits.")] = None,
    batch_size: Annotated[int | None, _count("--batch-size", "Rows in a batch.")] = None,
    y_sd: Annotated[float | None, _number("--y-sd", _FACTS, "The target's standard deviation, with 1/N.")] = None,
    solver: Solver = None,
    loss: Loss = None,
    momentum: Annotated[float | None, _number("--momentum", _CHOICES, "Of SGD with decoupled decay.")] = None,
    dampening: Annotated[float | None, _number("--dampening", _CHOICES, "Of SGD with decoupled decay.")] = None,
    decoupled_weight_decay: Decoupled = None,
    to_set: Other = None,
    debug: options.Debug = False,
) -> None:
    """Print one tool's strength as another's: the settings with which both minimise the same function."""
    # What convert takes is what its table of tools takes, so that the options are its parameters, name for name.
    given = {name: value for name, value in locals().items() if name not in _NOT_PARAMETERS and value is not None}
    from torchshrink.conversions.convert import TOOLS
    from torchshrink.conversions.convert import convert as converted

    if list_:
        _list(json=json)
        return
    if from_ is None:
        raise InputError(f"no --from given: expected one of {', '.join(TOOLS)}; see torchshrink convert --list")
    conversion = converted(from_, to=to, **given, **_to_set(to_set or ()))
    if json:
        console.emit_json(conversion.to_dict())
    else:
        _show(conversion)


_NOT_PARAMETERS = ("from_", "to", "list_", "to_set", "json", "debug")


def _to_set(words: list[str] | tuple[()]) -> dict[str, Any]:
    """``solver=lbfgs`` as to_solver="lbfgs"; what reads as a number is one."""
    values: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign and value):
            raise InputError(f"--to-set {word}: expected NAME=VALUE, such as solver=lbfgs")
        name = f"to_{name.replace('-', '_')}"
        if name in values:
            raise InputError(f"--to-set {word}: given twice; give it once")
        values[name] = _value(value)
    return values


def _value(word: str) -> float | bool | str:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        return float(word)
    except ValueError:
        return word


def _show(conversion: Conversion) -> None:
    """The equation, its settings, both objectives and the notes, for people."""
    console.emit_wrapped(str(conversion))
    console.emit("")
    exact = "both minimise the same function" if conversion.exact else "no: see the notes"
    pairs = [(name, repr(value)) for name, value in conversion.settings.items()]
    pairs += [("exact", exact)]
    pairs += [("from", f"{conversion.source} minimises {conversion.source_objective}")]
    pairs += [("to", f"{conversion.destination} minimises {conversion.objective}")]
    pairs += [("note", note) for note in conversion.notes]
    console.emit_pairs(pairs)


def _list(*, json: bool) -> None:
    from torchshrink.conversions.convert import REFUSED, TOOLS

    if json:
        tools = {
            tool.name: {
                "objective": tool.objective,
                "settings": {p.name: p.meaning for p in tool.settings},
                "needs": {p.name: p.meaning for p in tool.needs},
            }
            for tool in TOOLS.values()
        }
        console.emit_json({"tools": tools, "no_equivalent": REFUSED})
        return
    alike: dict[tuple[str, str, str], list[str]] = {}  # what is the same for several tools is told once
    for tool in TOOLS.values():
        takes, needs = (", ".join(p.name for p in group) for group in (tool.settings, tool.needs))
        alike.setdefault((tool.objective, takes, needs), []).append(tool.name)
    for (objective, takes, needs), names in alike.items():
        pairs = (("  minimises", objective), ("  takes", takes), ("  depends on", needs))
        console.emit_wrapped(", ".join(names))
        console.emit_pairs([pair for pair in pairs if pair[1]])
        console.emit("")
    console.emit_pairs([("none", f"{name} has no equivalent: {why}") for name, why in REFUSED.items()])
