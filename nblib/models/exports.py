"""A run's exports: the merged model, adapters, Flax checkpoint and GGUF, each proven before use.

A folder gets its name only when it was loaded again and answers as the model in memory does: the
parity gate (`models.parity`, for GGUF `models.gguf_parity`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunix.models.gemma3.model import Gemma3

from nblib.files import write_json
from nblib.models.adapters import save_adapters
from nblib.models.flax_folder import save_flax_model
from nblib.models.folders import (
    MANIFEST_FILE,
    check_replaceable,
    gguf_name,
    is_gguf_folder,
    read_manifest,
    rename_folder,
)
from nblib.models.gemma3 import save_model
from nblib.models.gguf_export import save_gguf
from nblib.models.gguf_parity import compare_gguf
from nblib.models.lora import ALL_WEIGHTS, LoraConfig, merge_lora
from nblib.models.memory import give_back_memory
from nblib.models.mesh import device_mesh
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.parity import PROMPTS, Parity, compare_folder
from nblib.runs import Run
from nblib.sources.rows import Dataset
from nblib.sources.wordproblems import word_problems
from nblib.tokens.chat import render_prompt
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
    gguf: str = "off",
    files: Callable[[RefModel], Mapping[str, Any]] | None = None,
) -> RefModel:
    """Merge what was trained over `base`, write the run's exports, and return the tuned model.

    `export/` holds the merged model, `adapters/` the adapters alone (if some were trained), `flax/`
    Kaggle's Flax checkpoint (if `flax`), `gguf/` one file for llama.cpp (if `gguf` is one of
    `GGUF_KINDS`). Each folder is loaded again, and continues the first sixteen `prompts` as the
    model does as it was trained, adapters apart, so that a wrong merge shows; the GGUF file is
    compared with the merged model. The comparisons are printed. `files` makes more of the tuned
    model, name -> JSON, which every folder gets.
    Raises ExportNotEqual, and FileExistsError for a folder that was not made here.
    """
    manifest = {
        "notebook": run.notebook,  # by this the next notebook finds it among a host's inputs
        "command": f"python -m nblib run {run.notebook}",
        "parameters": run.parameters,
        "base": base.described,
        "rope_factor": base.rope_factor,
        "context": base.context,
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
    if gguf != "off":
        writers["gguf"] = partial(save_gguf, *whole, kind=gguf, root=base.root, manifest={})
    given: dict[str, Any] = {"manifest": manifest, "prompts": prompts}
    given["files"] = files(tuned) if files else {}
    for name, write in writers.items():
        folder, model = run.path / name, tuned.model if name == "gguf" else trained
        proof = export_folder(folder, write, model, base, **given)
        print(f"{name}/", *proof, sep="\n")
    return tuned


def gguf_of(export: Path, kind: str) -> Path:
    """Return an export's GGUF file, in `gguf/` beside it; it is written now where there is none.

    Raises as `export_run`, and ImportError without the package `gguf`.
    """

    def made_of(folder: Path) -> dict[str, Any]:
        return {key: one for key, one in read_manifest(folder).items() if key != "parity"}

    folder, manifest = export.parent / "gguf", made_of(export)
    file = folder / gguf_name(kind)
    if not file.is_file() or made_of(folder) != manifest:
        ref = get_gemma_ref_model(str(export), device_mesh())
        whole = ref.model, ref.tokenizer
        write = partial(save_gguf, *whole, kind=kind, root=ref.root, manifest={})
        rows = word_problems(PROMPTS, seed=0, split="test")
        prompts = [render_prompt(row.fields["question"]) for row in rows]
        proof = export_folder(folder, write, ref.model, ref, manifest=manifest, prompts=prompts)
        print(f"{folder}/", *proof, sep="\n")
    return file


def export_folder(
    folder: Path,
    write: Callable[..., None],
    model: Gemma3,
    base: RefModel,
    *,
    manifest: Mapping[str, Any],
    prompts: Sequence[str],
    files: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Parity, ...]:
    """Fill a folder by `write(folder=...)`, and give it its name if it answers as `model` does.

    Until then it is called `<name>-unproven`, and `<name>-not-equal` if it fails. Only a proven
    folder's manifest has the keys of `manifest`, by which other notebooks find it. `base` gives
    tokenizer and mesh; adapters are read over it. `files` are more of JSON, by their names.
    Returns a comparison for each reader; raises as `export_run` does.
    """
    check_replaceable(folder)
    unproven = folder.with_name(f"{folder.name}-unproven")
    write(folder=unproven)
    for name, content in files.items():
        write_json(unproven / name, content)
    compare = compare_gguf if is_gguf_folder(unproven) else compare_folder
    found = compare(model, base, unproven, prompts)
    give_back_memory()
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
