"""``torchshrink shrink``: a trained model's zeros become size and speed, its outputs stay."""

from __future__ import annotations

from torchshrink.cli import console, option_checks, options
from torchshrink.cli.folder import refuse_taken
from torchshrink.errors import InputError


def shrink(
    folder: options.Folder,
    inputs: options.Inputs = False,
    format: options.Format = None,
    model: options.ModelAgain = None,
    out: options.Out = None,
    force: options.Force = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make the model that path or train left in FOLDER smaller where it has zeros, prove that its outputs are the same.

    Writes model.safetensors, model.json and shrink.json; of a model from module:function shrunk.safetensors and
    shrunk.json. FOLDER is not changed.
    """
    try:
        name = folder.resolve().name
    except (OSError, ValueError) as error:  # a name that no folder can have
        raise InputError(
            f"FOLDER {str(folder)[:100]!r}: {error}; the folder of a path or a training expected"
        ) from None
    place = out or option_checks.default_folder("shrink", name.removeprefix("path-").removeprefix("train-"))
    formats = tuple(dict.fromkeys(word.strip() for words in format or () for word in words.split(",") if word.strip()))
    for word in formats:
        option_checks.one_of("--format", word, options.FORMATS)
    refuse_taken(place, force=force)

    from torchshrink.cli.shrink_results import show_shrunk, shrink_folder  # from here on torch is needed

    result = shrink_folder(folder, place, inputs=inputs, formats=formats, model=model, force=force)
    if json:
        console.emit_json(result)
    else:
        show_shrunk(result)
