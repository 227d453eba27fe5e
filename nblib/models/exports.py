"""A run's exports: the merged model, its adapters and a Flax checkpoint, each proven before use.

A folder gets its name only when it was loaded again and answers as the model in memory does: the
parity gate (`models.parity`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tunix.models.gemma3.model import Gemma3

from nblib.files import write_json
from nblib.models.adapters import save_adapters
from nblib.models.flax_folder import save_flax_model
from nblib.models.folders import MANIFEST_FILE, check_replaceable, rename_folder
from nblib.models.gemma3 import save_model
from nblib.models.lora import ALL_WEIGHTS, LoraConfig, merge_lora
from nblib.models.names import RefModel
from nblib.models.parity import Parity, compare_folder
from nblib.runs import Run
from nblib.sources.rows import Dataset
from nblib.tokens.tokenizer import tokenizer_hashes


class ExportNotEqual(RuntimeError):
    """What was written does not answer as the model in memory; it is kept under another name."""


def export_run(
    run: Run,
    base: RefModel,
    trained: Gemma3,
    lora: LoraConfig,
    *,
    data: Dataset,
    steps: int,
    steps_left: int,
    prompts: Sequence[str],
    flax: bool = False,
) -> RefModel:
    """Merge what was trained over `base`, write the run's exports, and return the tuned model.

    `export/` holds the merged model, `adapters/` the adapters alone (if some were trained), `flax/`
    Kaggle's Flax checkpoint (if `flax`). Each folder is loaded again, and continues the first
    sixteen `prompts` as the model does as it was trained, adapters apart, so that a wrong merge
    shows. The comparisons are printed.
    Raises ExportNotEqual, and FileExistsError for a folder that was not made here.
    """
    manifest = {
        "notebook": run.notebook,  # by this the next notebook finds it among a host's inputs
        "command": f"python -m nblib run {run.notebook}",
        "parameters": run.parameters,
        "base": base.described,
        "data": {"origin": data.origin, "sha256": dict(data.sha256)},
        "steps": steps,
        "steps_left": steps_left,
    }
    tuned = base.with_model(merge_lora(trained, lora), name="tuned")
    whole, alone = (tuned.model, base.tokenizer), (trained, base.tokenizer)
    writers: dict[str, Callable[..., None]] = {"export": partial(save_model, *whole, manifest={})}
    if lora.rank != ALL_WEIGHTS:
        of_base = {"base": base.described}
        writers["adapters"] = partial(save_adapters, *alone, lora=lora, manifest=of_base)
    if flax:
        writers["flax"] = partial(save_flax_model, *whole, manifest={})
    for name, write in writers.items():
        folder = run.path / name
        proof = export_folder(folder, write, trained, base, manifest=manifest, prompts=prompts)
        print(f"{name}/", *proof, sep="\n")
    return tuned


def export_folder(
    folder: Path,
    write: Callable[..., None],
    model: Gemma3,
    base: RefModel,
    *,
    manifest: Mapping[str, Any],
    prompts: Sequence[str],
) -> tuple[Parity, ...]:
    """Fill a folder by `write(folder=...)`, and give it its name if it answers as `model` does.

    Until then it is called `<name>-unproven`, and `<name>-not-equal` if it fails. Only a proven
    folder's manifest has the keys of `manifest`, by which other notebooks find it. `base` gives
    tokenizer and mesh; adapters are read over it.
    Returns a comparison for each reader; raises as `export_run` does.
    """
    check_replaceable(folder)
    unproven = folder.with_name(f"{folder.name}-unproven")
    write(folder=unproven)
    found = compare_folder(model, base, unproven, prompts)
    proof = {"parity": [asdict(one) for one in found], **tokenizer_hashes(base.tokenizer)}
    if all(one.equal for one in found):
        write_json(unproven / MANIFEST_FILE, {**manifest, **proof})
        rename_folder(unproven, folder)
        return found
    failed = folder.with_name(f"{folder.name}-not-equal")
    write_json(unproven / MANIFEST_FILE, {**proof, "not_equal": dict(manifest)})
    rename_folder(unproven, failed)
    raise ExportNotEqual(
        f"the export does not answer as the model in memory; it is kept as {failed}:\n"
        + "\n".join(f"  {one}" for one in found)
    )
