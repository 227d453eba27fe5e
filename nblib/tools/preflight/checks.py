"""What can be checked without a compiler, before quota is spent: each a line that says why.

A check that cannot be done here is neither passed nor failed; it says what it lacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from nblib.evaluation.sampling import sample_group
from nblib.hosts.inputs import ExportNotFound, find_export
from nblib.hosts.session import NotEnoughSpace, check_disk_space
from nblib.hosts.settings import GrpoSettings
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED, GEMMA, KAGGLE_PAGE, has_credentials
from nblib.runs import runs_root
from nblib.tasks.registry import get_task
from nblib.tasks.rewards import reward_function
from nblib.tokens.tokenizer import END_OF_TURN
from nblib.tools.preflight.targets import PreflightError
from nblib.tools.preflight.workload import Workload, few_questions


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `passed` is None where it could not be done."""

    name: str
    passed: bool | None
    said: str

    def __str__(self) -> str:
        """One line."""
        mark = {True: "ok  ", False: "BAD ", None: "?   "}[self.passed]
        return f"{mark} {self.name}: {self.said}"


def check_mesh(mesh: jax.sharding.Mesh, devices: int, rows: Sequence[int]) -> list[Check]:
    """Check that every device is used and the rows of every batch can be split among them."""
    fsdp = mesh.shape["fsdp"]
    odd = [count for count in rows if count % fsdp]
    said = f"{odd[0]} rows, a run refuses these" if odd else f"rows are multiples of {fsdp}"
    return [
        Check(name="mesh", passed=mesh.size == devices, said=f"{mesh.size} of {devices} devices"),
        Check(name="batch", passed=not odd, said=said),
    ]


def check_examples(work: Workload) -> list[Check]:
    """Check that each example has one BOS, and that its end of turn is learnt."""
    if work.tokenizer is None:
        said = "no tokenizer here: not looked at"
        return [Check(name=name, passed=None, said=said) for name in ("one BOS", "stop token")]
    bos, end = work.tokenizer.bos_id(), work.tokenizer.piece_to_id(END_OF_TURN)
    bad = {
        "one BOS": [
            one.id for one in work.examples if np.flatnonzero(one.tokens == bos).tolist() != [0]
        ],
        "stop token": [
            one.id for one in work.examples if one.tokens[-1] != end or one.loss_mask[-1] != 1
        ],
    }
    found = []
    for name, ids in bad.items():
        said = f"in {len(work.examples) - len(ids)} of {len(work.examples)} examples"
        said += f", not in {ids[0]}" if ids else ""
        found.append(Check(name=name, passed=not ids, said=said))
    return found


def check_adapters(count: int, moved: float | None) -> list[Check]:
    """Check that there are weights to train, and that the first steps changed some."""
    said = "not trained here" if moved is None else f"the first steps changed one by {moved:.2g}"
    return [
        Check(name="trained weights", passed=count > 0, said=f"{count:,}"),
        Check(name="they move", passed=None if moved is None else moved > 0, said=said),
    ]


def check_rewards(settings: GrpoSettings, mesh: jax.sharding.Mesh, start: str) -> Check:
    """Check that the rewards of a group differ, on a few of the run's own questions.

    They are answered by the newest export of `start`, the notebook that GRPO goes on from.
    """
    task, size = get_task(settings.task), settings.num_generations
    name = "rewards differ"
    try:
        ref = get_gemma_ref_model(str(find_export(start)), mesh)
        examples = few_questions(settings, task)
    except ExportNotFound:
        return Check(name=name, passed=None, said=f"no export of {start} here: run it first")
    except PreflightError as error:
        return Check(name=name, passed=None, said=str(error))
    reward_fn = reward_function(task, settings.weights, max_new_tokens=settings.max_new_tokens)
    group = sample_group(ref, task, examples, reward_fn, settings.sampled, size=size)
    low, high = min(group.rewards), max(group.rewards)
    return Check(name=name, passed=high > low, said=f"{low:.2f} to {high:.2f} in a group of {size}")


def check_disk(parameters: int, trained: int) -> Check:
    """Check the disk space for checkpoints and exports, as the notebooks do before they begin."""
    root = runs_root().absolute()
    folder = next(one for one in (root, *root.parents) if one.exists())
    try:
        said = check_disk_space(folder, trained=trained, exported=parameters)
    except NotEnoughSpace as error:
        return Check(name="disk", passed=False, said=str(error))
    return Check(name="disk", passed=True, said=said)


def check_licence(model: str) -> Check:
    """Check that a model with terms of its own can be had without a prompt."""
    if model.rpartition(":")[2] not in GEMMA:
        terms = "Apache-2.0" if model == EMBEDDED else "that of its folder"
        return Check(name="licence", passed=True, said=terms)
    hubs = {"Kaggle": False, "Hugging Face": True}
    found = [name for name, hub in hubs.items() if has_credentials(hub=hub)]
    said = f"Gemma's: accept it on {KAGGLE_PAGE}; credentials: {' and '.join(found) or 'none here'}"
    return Check(name="licence", passed=True if found else None, said=said)
