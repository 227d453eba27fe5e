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
# | **Inputs** | nothing (embedded model), or a model by name, folder or GGUF file; GSM8K by name |
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
# `0`, `""` and `[]` mean "from the profile", `-1` means all there are. What to train, and on what:

# %% tags=["parameters-data"]
MODEL = ""  # embedded, gemma3-1b-it, gemma3-270m, a folder, a .gguf file, or "adapters::base"
DTYPE = ""  # bfloat16, float32: of frozen weights; what is trained is float32
DATA = ""  # builtin, gsm8k
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
NUM_SAMPLES = 0  # training rows: 10 to 50 to try things out, -1 for all
NUM_EPOCHS = 0
DIFFICULTY_FILTER = []  # levels (numbers of steps) to train on, for example [1, 2]
MAX_LENGTH = 0  # tokens; longer examples are counted and left out, never cut

# %% [markdown]
# How to train:

# %% tags=["parameters-training"]
LEARNING_RATE = 0.0
LORA_RANK = 0  # -1 trains all weights, without adapters
LORA_ALPHA = 0.0
BATCH_TOKENS = 0  # tokens a batch, padding included
GRADIENT_ACCUMULATION = 1  # batches a step
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
EVAL_SAMPLES = 0  # held-out questions, -1 for all
MAX_NEW_TOKENS = 0

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded. The second table is what the profile
# filled in. A run that was killed, or whose session was over, is found by these values, here or in
# an attached output, and goes on.

# %%
session = hosts.begin(hosts.SftSettings, globals())
settings, mesh = session.settings, session.mesh
run = session.start_run("v1_sft_format")
task = tasks.GSM8K
page = report.Page(title="v1 · SFT: teach the format", task=task, seed=SEED)

# %% [markdown]
# ## Data
# A row as its source gave it: a question, the steps with their annotations, `#### N`. The task
# makes an example of it: the steps become the reasoning, the number becomes the answer.

# %%
data = sources.get_dataset(
    settings.data,
    folder=settings.data_folder,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    levels=settings.builtin_levels,
    long_hand=settings.long_hand,
    seed=SEED,
)
examples = task.examples(data.train[:1])
display(report.rows_table(data), report.examples_table(examples))

# %% [markdown]
# A slice of train is kept for the validation loss; the test split is read by the evaluation alone.

# %%
chosen, other_level = tasks.choose_examples(
    task, data.train, settings.num_samples, groups=settings.levels, seed=SEED
)
train_examples, val_examples = sources.split_validation(chosen)
held_out, _ = tasks.choose_examples(task, data.test, settings.eval_samples, seed=SEED)
print(f"{other_level} of {len(data.train)} rows dropped by DIFFICULTY_FILTER")
print(f"{len(train_examples)} to train, {len(val_examples)} to validate, {len(held_out)} held out")

# %% [markdown]
# ## Model
# Loaded by name, always with the tokenizer of its own folder.

# %%
base = models.get_gemma_ref_model(settings.model, mesh, dtype=settings.dtype)
print(base)

# %% [markdown]
# ## Tokens
# The model reads the question with loss mask 0 (not learnt) and learns only what it has to write
# (mask 1), the end of its turn included. With `PACKING` several examples share a row, none of them
# cut or seen by another: the loss is the same, the padding less. BOS is the token that begins
# every sequence; Gemma expects exactly one.

# %%
texts = tokens.training_data(
    tokens.encode_task(base.tokenizer, task, train_examples),
    tokens.encode_task(base.tokenizer, task, val_examples),
    settings.batching,
    row_multiple=mesh.shape["fsdp"],
)
print(texts)
print(tokens.show_loss_mask(base.tokenizer, texts.examples[0]))

# %% [markdown]
# ## LoRA
# Adapters, small trained matrices, on all six projections of every layer; the base stays as it is.
# The disk must have space for what the training will write.

# %%
model = models.get_trainable_model(base.model, mesh, settings.lora, seed=SEED)
size, trained_size = models.parameter_count(base.model), models.trainable_count(model)
print(f"{trained_size:,} weights are trained")
print("disk:", hosts.check_disk_space(run.path, trained=trained_size, exported=size))

# %% [markdown]
# ## Base
# Measured before anything is trained, in two ways: with the format's prompt, and in its *own form*,
# the form of answer that it already knows (`#### N`). So we see what the format costs or gains in
# arithmetic.

# %%
greedy = settings.greedy
sampled = greedy.sampled(temperature=0.7, top_p=0.95)
before = evaluation.evaluate_stages(
    base,
    {"base": (task, greedy), "base_own_form": (task.in_base_form, greedy)},
    held_out,
    enabled=settings.eval_at_end,
    kept=run.path.parent,  # asked once, for later runs as well
)

# %% [markdown]
# ## Training
# AdamW with warm-up and a cosine; one line about every 15 seconds. The evaluation and the export at
# the end get their time first, the training what is left of the session. If that is not enough, the
# training ends early, is saved, exported and measured, and the next session goes on.

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
# `export/`: the adapters merged in fp32 into a plain Gemma 3 folder, which v2 and other tools load.
# `adapters/`: the adapters alone, as `peft` takes them. With `EXPORT_FLAX`, `flax/`; with
# `EXPORT_GGUF`, `gguf/`. Each is loaded again, from nothing, and gets its name only if it answers
# as the model in memory does.

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
# The same questions, greedily and with standard sampling. Nothing constrains the decoding.

# %%
after = evaluation.evaluate_stages(
    tuned,
    {"tuned": (task, greedy), "tuned_sampled": (task, sampled)},
    held_out,
    enabled=settings.eval_at_end,
)
stages = (*before, *after)

# %% [markdown]
# ## Result
# Every rate with its 95 % interval. `joint accuracy` counts answers that are right *and* in strict
# form, so it cannot be raised by either alone.

# %%
page.table(report.stage_table(task, stages))

# %%
shown = ("format_accuracy", "answer_extractable", "answer_accuracy", "joint_accuracy")
page.figure("Base and tuned", report.plot_stages(task, stages, shown, seed=SEED))
page.figure("Right answers by level", report.plot_groups(task, stages, seed=SEED))

# %% [markdown]
# ## Verdict
# The targets of this run, and what to try where one was missed.

# %%
page.verdicts(report.sft_verdicts(task, stages, settings.format_target))

# %% [markdown]
# ## Samples
# The same question before and after.

# %%
page.samples((*before[:1], *after[:1]), count=4)

# %% [markdown]
# ## Report
# `report.html` with everything above, a card for each exported folder, and `result.json`.

# %%
about = {"model": base.name, "data": data.origin, "hashes": hashes}
report.finish(run, stages, page, trained=trained, **about)

# %% [markdown]
# ## Summary
# The tuned model shows its work in strict form; its answers are as good as the base's own were, no
# better: SFT on this data teaches *how to say it*. **Next:** `v2_grpo` starts from this export and
# rewards right answers.
