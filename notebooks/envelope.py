# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: sft
#     task: envelope
# ---

# %% [markdown]
# # Envelope · SFT: an answer that is one valid JSON object
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# A travel assistant must answer with one JSON object of seven fields, whose payload has one of four
# forms. Three recipes are there: v1 and v2, which fail, and v3, which does not. The notebook says
# by figures why, before anything is trained, and names what is wrong with each answer that is not
# valid.
#
# | | |
# |---|---|
# | **Goal** | valid answers from 0 % to over 95 %, judged by a strict schema, nothing constrained |
# | **Hardware** | a laptop's CPU (embedded model), or a Kaggle TPU v5e-8 (Gemma 3 1B) |
# | **Minutes** | CPU, built-in requests: under 15 |
# | **Inputs** | nothing, or your own examples as a `.jsonl` file; a model by name, folder or GGUF |
# | **Outputs** | `runs/envelope/<run>/`: `export/`, every failure by its code, a report |
# | **Next** | [v2_grpo] with `TASK = "envelope"` rewards valid answers |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/envelope.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/envelope.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
# [kaggle-badge]: https://kaggle.com/static/images/open-in-kaggle.svg
# [v2_grpo]: https://github.com/nblib-suite/nblib/blob/main/notebooks/v2_grpo.ipynb

# %% [markdown]
# ## Install
# A checkout's own `nblib` is used; a built kernel brings its wheel; opened from a badge, it comes
# from the repository. The pinned packages are installed before anything imports jax, and only
# where they are missing. Then the rooms of `nblib`: a name below says where its code is.

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

from IPython.display import display

from nblib import evaluation, hosts, models, report, sources, tasks, tokens, training

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile", `-1` means all there are. `VERSION` is a recipe: it
# fills what you leave open. What to train, and on what:

# %% tags=["parameters-data"]
VERSION = "v3"  # v1, v2, v3
MODEL = ""  # embedded, gemma3-1b-it, gemma3-270m, a folder, a .gguf file, or "adapters::base"
DTYPE = ""  # bfloat16, float32: of frozen weights; what is trained is float32
TASK = "envelope"
DATA = ""  # builtin, or a .jsonl file of objects with prompt, response and payload_type
NUM_SAMPLES = 0  # training rows: 10 to 50 to try things out, -1 for all
NUM_EPOCHS = 0
MAX_LENGTH = 0  # tokens
CUT_AT_MAX_LENGTH = False  # learn from longer examples without their end; v1 and v2 do

# %% [markdown]
# How to train:

# %% tags=["parameters-training"]
LEARNING_RATE = 0.0
LORA_RANK = 0  # -1 trains all weights
LORA_ALPHA = 0.0
BATCH_TOKENS = 0  # tokens a batch, padding included
GRADIENT_ACCUMULATION = 0  # batches a step
PACKING = ""  # on, off: several examples a row, for less padding
REMAT = False  # gradient checkpointing: recompute each layer's activations in the backward pass
SAVE_INTERVAL = ""  # "10 steps" or "30 min"
RESUME_FROM = ""  # another run's folder `checkpoints`, to go on from with another LEARNING_RATE

# %% [markdown]
# Where and how long to run, and what to measure:

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
SEED = 0
SESSION_HOURS = 0.0  # 0: what Kaggle gives (TPU 9, else 12), no limit elsewhere
EXPORT_FLAX = False  # the model once more as Kaggle's Flax checkpoint (Orbax)
EXPORT_GGUF = "off"  # off, f16, q8_0: the model once more for llama.cpp, Ollama, LM Studio
EVAL_AT_END = True
EVAL_SAMPLES = 0  # held-out prompts, -1 for all; the first 20 are shown apart
MAX_NEW_TOKENS = 0

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded.

# %%
session = hosts.begin(hosts.SftSettings, globals())
settings, mesh = session.settings, session.mesh
run = session.start_run("envelope")
task = tasks.get_task(settings.task)
page = report.Page(title=f"Envelope {VERSION}: one valid JSON object", task=task, seed=SEED)

# %% [markdown]
# ## Data
# A request and its answer. Answers of a strong model are rarely all in form: fields are missing,
# null, misnamed or of another type, a fence stands around them. What is wrong in the data is learnt
# with it, so it is mended here, by rules that are counted, and never in the validator. What no rule
# can mend is dropped, and listed by file and line.

# %%
data = sources.get_dataset(
    settings.data,
    task=settings.task,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    seed=SEED,
)
learnable, asked = (tasks.normalise_envelopes(rows) for rows in (data.train, data.test))
print(f"train: {learnable}\ntest: {asked}")
examples = task.examples(learnable.rows[:1])
display(report.rows_table(data), report.examples_table(examples))

# %% [markdown]
# A slice of train is kept for the validation loss; the test split is read by the evaluation alone.

# %%
chosen, _ = tasks.choose_examples(task, learnable.rows, settings.num_samples, seed=SEED)
train_examples, val_examples = sources.split_validation(chosen)
held_out, _ = tasks.choose_examples(task, asked.rows, settings.eval_samples, seed=SEED)
print(f"{len(train_examples)} to train, {len(val_examples)} to validate, {len(held_out)} held out")

# %% [markdown]
# ## Model
# Loaded by name, always with the tokenizer of its own folder.

# %%
base = models.get_gemma_ref_model(settings.model, mesh, dtype=settings.dtype)
print(base)

# %% [markdown]
# ## What is in the loss, and how many steps there are
# A model learns to write what is in its loss. Where examples are cut at `MAX_LENGTH`, the end of
# the envelope is not: the last fields, and the brackets that close it. And one pass over the data
# in large steps is few steps. Both can be read here, before an hour is spent.

# %%
encoded = [
    tokens.encode_task(base.tokenizer, task, part) for part in (train_examples, val_examples)
]
recipes = {
    name: hosts.SftSettings.of({**globals(), "VERSION": name}) for name in ("v1", "v2", "v3")
}
plans = {
    name: tokens.training_data(*encoded, one.batching, row_multiple=mesh.shape["fsdp"])
    for name, one in recipes.items()
}
page.table(report.versions_table(recipes, plans))

# %%
texts = plans[settings.version]
print(texts)
page.warn(*report.plan_warnings(texts, settings.accumulation))
print(tokens.show_loss_mask(base.tokenizer, texts.examples[0]))

# %% [markdown]
# ## What is trained
# All weights of a small model, or LoRA adapters over a large one. The disk must have space for what
# the training will write.

# %%
model = models.get_trainable_model(base.model, mesh, settings.lora, seed=SEED)
size, trained_size = models.parameter_count(base.model), models.trainable_count(model)
print(f"{trained_size:,} weights are trained")
print("disk:", hosts.check_disk_space(run.path, trained=trained_size, exported=size))

# %% [markdown]
# ## Base
# Before anything is trained, greedily, in no grammar: what is measured is what the model writes.

# %%
greedy = settings.greedy
before = evaluation.evaluate_stages(
    base,
    {"base": (task, greedy)},
    held_out,
    enabled=settings.eval_at_end,
    kept=run.path.parent,  # asked once, for later runs as well
)

# %% [markdown]
# ## Training
# AdamW with warm-up and a cosine; one line about every 15 seconds. The evaluation and the export at
# the end get their time first, the training what is left of the session.

# %%
hashes = {**base.hashes, "examples": texts.sha256}
trained = training.train(
    model,
    texts,
    settings.training,
    run,
    hashes=hashes,
    mesh=mesh,
    resume_from=settings.resume_from,
    deadline_s=session.training_s(sum(stage.seconds for stage in before), exported=size),
)

# %%
page.figure("Loss while training", report.plot_training(trained.history, seed=SEED, title="SFT"))

# %% [markdown]
# ## Export
# `export/` is a plain Gemma 3 folder, which other tools load. It is loaded again, from nothing, and
# gets its name only if it answers as the model in memory does.

# %%
tuned = models.export_run(
    run,
    base,
    model,
    settings.lora,
    data=data,
    steps=trained.steps,
    steps_left=trained.left,
    prompts=tokens.task_prompts(task, held_out),
    flax=settings.export_flax,
    gguf=settings.export_gguf,
)

# %% [markdown]
# ## Tuned
# The same prompts. The newest runs of the other versions, if there are any, answered the same ones:
# their answers are scored again and stand beside it.

# %%
after = evaluation.evaluate_stages(
    tuned, {"tuned": (task, greedy)}, held_out, enabled=settings.eval_at_end
)
asking = evaluation.Asking(folder=run.path / "answers", mesh=mesh)
others = evaluation.answer_all(hosts.other_versions(run), task, held_out, greedy, asking)
stages = (*before, *others, *after) if after else ()

# %% [markdown]
# ## Result
# Every figure with its 95 % interval. `schema valid` is judged of the strict reading: the whole
# completion is one JSON value that both schemas allow. What is said of "the object found" is said
# with prose around it too, so that one sees how far an answer is.

# %%
page.table(report.stage_table(task, stages))

# %%
few = evaluation.first_items(stages, task, 20)
page.table(report.stage_table(task, few, title="The first 20 prompts"))

# %%
shown = ("json_found", "parse_strict", "envelope_valid", "payload_valid", "schema_valid")
page.figure("Base and tuned", report.plot_stages(task, stages, shown, seed=SEED))
page.figure("Valid answers by payload", report.plot_groups(task, stages, seed=SEED))

# %% [markdown]
# ## The gain
# The same prompts before and after: what counts are the ones that changed (McNemar's exact test,
# corrected by Holm for several comparisons).

# %%
comparison = evaluation.compare_stages(stages, task) if stages else None
if comparison:
    page.table(report.gain_table(comparison))

# %% [markdown]
# ## What fails, and what to do about it
# The first rule that a completion broke, the place in the schema, and one sample of each.

# %%
failed = evaluation.schema_failures(after, task)
page.table(report.failures_table(task, failed))

# %% [markdown]
# ## Verdict
# The targets of this run, and what to try where one was missed.

# %%
page.verdicts(report.sft_verdicts(task, stages))

# %% [markdown]
# ## Samples
# The same prompt before and after.

# %%
page.samples((*before, *after), count=4)

# %% [markdown]
# ## Report
# `report.html` with everything above, a card for each exported folder, `result.json`,
# `comparison_metrics.json`, and every failure in `schema_failures_debug.jsonl`.

# %%
about = {"model": base.name, "data": data.origin, "hashes": hashes}
found = tasks.notes_metrics(stages[0].metrics, stages[-1].metrics) if stages else {}
report.finish(run, stages, page, trained=trained, comparison=comparison, **about, **found)

# %% [markdown]
# ## Summary
# Read the table of versions beside the one of results: where the end of the envelope is not in the
# loss, no amount of steps makes it valid. **Next:** `v2_grpo` with `TASK = "envelope"` and this
# run's export as `MODEL` rewards what is valid, and takes no example at all.
