# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: sft
#     task: gsm8k
# ---

# %% [markdown]
# # v1 · SFT: teach the format
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# Fine-tunes Gemma 3 with LoRA so that it shows its work:
# `<reasoning>...</reasoning><answer>N</answer>`. Base and tuned model answer the same held-out
# questions, and one strict scorer judges both.
#
# | | |
# |---|---|
# | **Goal** | strict format from 0 % to over 99 %, without costing the arithmetic |
# | **Hardware** | a laptop's CPU (embedded model), or a Kaggle TPU v5e-8 (Gemma 3 1B) |
# | **Minutes** | CPU, built-in problems: 4; CPU, `-p DATA gsm8k`: under 20 |
# | **Inputs** | nothing (embedded model), or a model by name or folder; GSM8K by name |
# | **Outputs** | `runs/v1_sft_format/<run>/`: `export/` for v2, `adapters/`, a report |
# | **Next** | [v2_grpo] improves the answers |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/v1_sft_format.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/v1_sft_format.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
# [kaggle-badge]: https://kaggle.com/static/images/open-in-kaggle.svg
# [v2_grpo]: https://github.com/nblib-suite/nblib/blob/main/notebooks/v2_grpo.ipynb

# %% [markdown]
# ## Install
# A checkout's own `nblib` is used; a built kernel brings its wheel; opened from a badge, it comes
# from the repository. Then the pinned packages, before anything imports jax. Done once only.

# %% tags=["install"]
import os
import subprocess
import sys
from importlib.util import find_spec

nblib_from = os.environ.get("NBLIB_WHEEL", "git+https://github.com/nblib-suite/nblib@v0.1.0")
sys.path.append("..")  # from a checkout's notebooks/ to its nblib/
if getattr(find_spec("nblib"), "origin", None) is None:
    pip_install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip_install, nblib_from], check=True)

from nblib.hosts.install import install_packages

install_packages("0.1.0")

# %% [markdown]
# ## Imports
# All that is done lives in `nblib`; the notebook says what is done, in which order, and why.

# %%
import time

from IPython.display import display

from nblib.evaluation.answers import evaluate_stages
from nblib.files import read_jsonl
from nblib.hosts.budget import check_room, session_budget
from nblib.hosts.inputs import bring_attached_run
from nblib.hosts.place import where_am_i
from nblib.hosts.secrets import provide_tokens
from nblib.hosts.settings import SftSettings
from nblib.models.gemma3 import parameter_count
from nblib.models.lora import LORA_PARAMETER, get_lora_model, merge_lora
from nblib.models.mesh import device_mesh, mesh_summary
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import PROMPTS, export_adapters, export_model
from nblib.report import (
    Page,
    finish,
    plot_groups,
    plot_stages,
    plot_training,
    settings_table,
    sft_verdicts,
    stage_table,
)
from nblib.runs import start_run
from nblib.sources.datasets import get_dataset
from nblib.sources.rows import split_validation
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import choose_examples
from nblib.tokens.batches import encode_task, show_loss_mask
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import tokenizer_seal
from nblib.tokens.training_data import training_data
from nblib.training.sft import train

started = time.monotonic()

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile"; `-1` means all there are.

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
MODEL = ""  # embedded, gemma3-1b-it, gemma3-270m-it, a folder, or "adapters::base"
DTYPE = ""  # bfloat16, float32: of weights that stay as they are; what is trained is float32
DATA = ""  # builtin, gsm8k
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
NUM_SAMPLES = 0  # training rows: 10 to 50 to try things out, -1 for all
NUM_EPOCHS = 0
DIFFICULTY_FILTER = []  # levels (numbers of steps) to train on, for example [1, 2]
MAX_LENGTH = 0  # tokens; longer examples are counted and left out, never cut
PACKING = ""  # on, off: several examples a row, for less padding
BATCH_TOKENS = 0  # tokens a batch, padding included
GRADIENT_ACCUMULATION = 1  # batches a step
REMAT = False  # keep less of each layer: larger batches fit, a step takes a third longer
LEARNING_RATE = 0.0
LORA_RANK = 0
LORA_ALPHA = 0.0
SAVE_INTERVAL = ""  # "10 steps" or "30 min"
RESUME_FROM = ""  # another run's folder `checkpoints`, to go on from with another LEARNING_RATE
SESSION_HOURS = 0.0  # 0: what Kaggle gives (TPU 9, else 12), no limit elsewhere
EXPORT_FLAX = False  # the model once more as Kaggle's Flax checkpoint (Orbax)
EVAL_AT_END = True
EVAL_SAMPLES = 0  # held-out questions, -1 for all
MAX_NEW_TOKENS = 0
SEED = 0

# %% [markdown]
# ## Set-up
# Where this runs, and how long it may. All parameters are checked here, before anything is loaded.

# %%
place = where_am_i(PROFILE)
settings = SftSettings.of(globals())
budget = session_budget(place, settings.session_hours)
mesh = device_mesh()
print(place, mesh_summary(mesh), budget, sep="\n")
print(f"tokens     {provide_tokens() or 'none'}")

# %% [markdown]
# What the profile filled in, and the folder that will hold all that is left. A run that was killed,
# or whose session was over, is found again by its parameters, here or in an attached output, and
# goes on.

# %%
parameters = settings.parameters
bring_attached_run("v1_sft_format", parameters)
run = start_run("v1_sft_format", parameters, devices=place.devices, started=started)
page = Page(title="v1 · SFT: teach the format", task=GSM8K, seed=SEED)
display(settings_table(parameters))

# %% [markdown]
# ## Data
# Raw rows as their source gave them: a question, the steps with their annotations, `#### N`.

# %%
data = get_dataset(
    settings.data,
    folder=settings.data_folder,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    levels=settings.builtin_levels,
    long_hand=settings.long_hand,
    seed=SEED,
)
print(data.origin, *data.notes, sep="\n")
print(*data.train[0].fields.values(), sep="\n")

# %% [markdown]
# A slice of train is kept for the validation loss; the test split is read by the evaluation alone.

# %%
chosen, other_level = choose_examples(
    GSM8K, data.train, settings.num_samples, groups=settings.levels, seed=SEED
)
train_examples, val_examples = split_validation(chosen)
held_out, _ = choose_examples(GSM8K, data.test, settings.eval_samples, seed=SEED)
print(f"{other_level} of {len(data.train)} rows dropped by DIFFICULTY_FILTER")
print(f"{len(train_examples)} to train, {len(val_examples)} to validate, {len(held_out)} held out")

# %% [markdown]
# ## Model
# Loaded by name, always with the tokenizer of its own folder.

# %%
base = get_gemma_ref_model(settings.model, mesh, dtype=settings.dtype)
print(base)

# %% [markdown]
# ## Examples
# Annotations go, the steps become the reasoning, the number becomes the answer. The model reads
# the question with mask 0 and learns only what it has to write, the end of its turn included. With
# `PACKING` several examples share a row, none of them cut or seen by another; the loss is the same,
# the padding less.

# %%
texts = training_data(
    encode_task(base.tokenizer, GSM8K, train_examples),
    encode_task(base.tokenizer, GSM8K, val_examples),
    **settings.batching,
    row_multiple=mesh.shape["fsdp"],
)
print(texts)
print(show_loss_mask(base.tokenizer, texts.examples[0]))

# %% [markdown]
# ## LoRA
# Adapters on all six projections of every layer. The base stays as it is. What the training will
# write must have room on the disk.

# %%
model = get_lora_model(base.model, mesh, seed=SEED, **settings.lora)
size, trained_size = parameter_count(base.model), parameter_count(model, LORA_PARAMETER)
print(f"{trained_size:,} adapter weights are trained")
print("disk:", check_room(run.path, trained=trained_size, exported=size))

# %% [markdown]
# ## Base
# Measured before anything is trained: with the format's prompt, and in the form it already knows,
# so that what the format costs or gains in arithmetic can be seen.

# %%
own_form = GSM8K.in_base_form
greedy = settings.greedy
standard = greedy.sampled(temperature=0.7, top_p=0.95)
before = evaluate_stages(
    base,
    {"base": (GSM8K, greedy), "base_own_form": (own_form, greedy)},
    held_out,
    mesh=mesh,
    enabled=settings.eval_at_end,
)

# %% [markdown]
# ## Time
# The evaluation and the export at the end get their time first, the training what is left of the
# session. It ends early if it must: what it has is saved, exported and measured, and the next
# session goes on.

# %%
deadline_s = budget.training_s(evaluation_s=sum(stage.seconds for stage in before), exported=size)

# %% [markdown]
# ## Training
# AdamW with warm-up and a cosine. One line about every 15 seconds.

# %%
hashes = {
    "model": base.sha256,
    **tokenizer_seal(base.tokenizer),
    "examples": texts.sha256,
}
trained = train(
    model,
    texts.batches,
    settings.training,
    folder=run.checkpoints,
    metrics_path=run.path / "metrics.jsonl",
    identity={**hashes, **parameters},
    mesh=mesh,
    val_batches=texts.val_batches,
    resume_from=settings.resume_from,
    deadline_s=deadline_s,
)

# %%
history = read_jsonl(run.path / "metrics.jsonl")
page.figure("Loss while training", plot_training(history, seed=SEED, title="SFT"))

# %% [markdown]
# ## Export
# Adapters merged in fp32 into a plain Gemma 3 folder, which v2 and other tools load. It is loaded
# again, from nothing, and gets its name only if it answers as the model that was trained does.

# %%
tuned = base.with_model(merge_lora(model, **settings.lora), name="tuned")
manifest = {
    "notebook": "v1_sft_format",  # by this v2 finds it among a host's inputs
    "command": "python -m nblib run v1_sft_format",
    "parameters": parameters,
    "base": base.described,
    "data": {"origin": data.origin, "sha256": dict(data.sha256)},
    "steps": trained.steps,
    "steps_left": trained.left,
}
parity_check = {"prompts": task_prompts(GSM8K, held_out[:PROMPTS]), "mesh": mesh}
exporting = {"manifest": manifest, **parity_check}
proof = export_model(tuned.model, tuned.tokenizer, run.export, trained=model, **exporting)
print(*proof, sep="\n")

# %% [markdown]
# Beside it the adapters alone, as `peft` takes them: small, and of use only over this very base.
# They are proven in the same way, and so is the Flax checkpoint, where `EXPORT_FLAX` asks for one.

# %%
adapters, flax = run.path / "adapters", run.path / "flax"
proof = export_adapters(model, base, adapters, **settings.lora, **exporting)
if settings.export_flax:
    proof += export_model(tuned.model, tuned.tokenizer, flax, trained=model, flax=True, **exporting)
print(*proof, sep="\n")

# %% [markdown]
# ## Tuned
# The same questions, greedily and with standard sampling. Nothing constrains the decoding.

# %%
after = evaluate_stages(
    tuned,
    {"tuned": (GSM8K, greedy), "tuned_sampled": (GSM8K, standard)},
    held_out,
    mesh=mesh,
    enabled=settings.eval_at_end,
)
stages = (*before, *after)

# %% [markdown]
# ## Result
# Every rate with its 95 % interval. `joint accuracy` counts answers that are right *and* in strict
# form, so it cannot be raised by either alone.

# %%
page.table(stage_table(GSM8K, stages))

# %%
shown = ("format_accuracy", "answer_extractable", "answer_accuracy", "joint_accuracy")
page.figure("Base and tuned", plot_stages(GSM8K, stages, shown, seed=SEED))
page.figure("Right answers by level", plot_groups(GSM8K, stages, seed=SEED))

# %% [markdown]
# ## Verdict

# %%
page.verdicts(sft_verdicts(GSM8K, stages, settings.format_target))

# %% [markdown]
# ## Samples
# The same question before and after.

# %%
page.samples((*before[:1], *after[:1]), count=4)

# %% [markdown]
# ## Report
# And a card for each exported folder: data, settings, rates, limits.

# %%
about = {"model": base.name, "data": data.origin, "hashes": hashes, "trained": trained}
finish(run, stages, page, **about)

# %% [markdown]
# ## Summary
# The tuned model shows its work in strict form; its answers are as good as the base's own were, no
# better: SFT on this data teaches *how to say it*. **Next:** `v2_grpo` starts from this export and
# rewards right answers.
