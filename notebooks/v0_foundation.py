# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: foundation
#     task: gsm8k
# ---

# %% [markdown]
# # v0 · Foundation: a small Gemma 3 from nothing
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# Trains a Gemma-3-architecture model of 1.5 M parameters on word problems that are made here, so
# that every later notebook has a model to start from with nothing downloaded.
#
# | | |
# |---|---|
# | **Goal** | a model that answers one- and two-step word problems in plain form, `#### N` |
# | **Hardware** | a laptop's CPU with 2 cores |
# | **Minutes** | recipe `quick`: under 10; recipe `full`, which makes what ships: under 120 |
# | **Inputs** | none; recipe `full` also reads GSM8K's training text where it is found |
# | **Outputs** | `runs/v0_foundation/<run>/export/`, a Hugging Face model folder; a report |
# | **Next** | [v1_sft_format] teaches this model to show its work |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/v0_foundation.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/v0_foundation.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
# [kaggle-badge]: https://kaggle.com/static/images/open-in-kaggle.svg
# [v1_sft_format]: https://github.com/nblib-suite/nblib/blob/main/notebooks/v1_sft_format.ipynb

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
# `0`, `""` and `[]` mean "from the recipe". Set any of them to change one thing. What to train on:

# %% tags=["parameters-data"]
RECIPE = "quick"  # quick, full
SIZE = "embedded"  # embedded, tiny, small, medium
DIFFICULTY_FILTER = []  # levels to train on, for example [1, 2]
NUM_SAMPLES = 0  # built-in training problems
NUM_EPOCHS = 0
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
MAX_LENGTH = 0  # tokens; longer texts are counted and left out, never cut
PACKING = ""  # on, off: several texts a row, for less padding

# %% [markdown]
# How, where and how long to train:

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
SEED = 0
BATCH_TOKENS = 0  # tokens a batch, padding included
GRADIENT_ACCUMULATION = 1  # batches a step
LEARNING_RATE = 0.0
SAVE_INTERVAL = ""  # "100 steps" or "10 min"
SESSION_HOURS = 0.0  # 0: what Kaggle gives (TPU 9, else 12), no limit elsewhere
EVAL_SAMPLES = 0  # held-out problems, shared by the levels

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is made. The second table is what the recipe
# filled in. A run that was killed, or whose session was over, is found by these values, here or in
# an attached output, and goes on.

# %%
session = hosts.begin(hosts.FoundationSettings, globals())
settings, mesh = session.settings, session.mesh
run = session.start_run("v0_foundation")
task = tasks.GSM8K.in_base_form
page = report.Page(title="v0 · Foundation: a small Gemma 3 from nothing", task=task, seed=SEED)

# %% [markdown]
# ## Problems
# Stories made from a seed, with as many steps as their level says. The held-out ones share no
# question and no (template, numbers) pair with the training ones.

# %%
rows = sources.foundation_rows(
    settings.levels,
    settings.num_samples,
    held_out=settings.eval_samples,
    gsm8k_epochs=settings.gsm8k_epochs,
    gsm8k_folder=settings.data_folder,
    practice=settings.practice_samples,
    practice_levels=settings.practice_levels,
    long_hand=settings.long_hand,
    seed=SEED,
)
examples = task.examples(rows.train[:1])
display(report.rows_table(rows), report.examples_table(examples))

# %% [markdown]
# ## Tokenizer
# 544 pieces: the 256 bytes, so that no text is lost, and the commonest fragments. Digits are split
# and the chat markers are single pieces, as in Gemma's own tokenizer.

# %%
documents = tokens.foundation_documents(rows.train, seed=SEED)
val_documents = tokens.foundation_documents(rows.validation, seed=SEED)
tokenizer = tokens.train_tokenizer(tokens.corpus_texts(documents, most=4000), vocab_size=544)
print(tokenizer.encode(documents[0].completion, out_type=str))

# %% [markdown]
# ## Tokens
# Most texts are chats, in the surface form that the later notebooks write; some carry the system
# prompt, some the annotations of GSM8K, and a few only practise the tags.

# %%
val_texts = tokens.encode_documents(tokenizer, val_documents)
encoded, fsdp = tokens.encode_documents(tokenizer, documents), mesh.shape["fsdp"]
texts = tokens.training_data(encoded, val_texts, settings.batching, row_multiple=fsdp)
print(texts)
print(f"\n{documents[1].prompt}{documents[1].completion}")

# %% [markdown]
# ## Model
# Tunix's own Gemma 3 at a size that a laptop can train: five layers attend to a window, the sixth
# to everything. The disk must have space for what the training will write.

# %%
foundation = models.new_ref_model(settings.size, tokenizer, mesh, seed=SEED)
size = models.parameter_count(foundation.model)
print(foundation)
print("disk:", hosts.check_disk_space(run.path, trained=size, exported=size))

# %% [markdown]
# ## Training
# The same trainer that the fine-tuning uses, here on all weights; a line about every 15 seconds.
# The evaluation and the export at the end get their time first, the training what is left of the
# session. Two CPU cores answer ten problems a second.

# %%
evaluation_s = 0.1 * settings.eval_samples
hashes = {**tokens.tokenizer_hashes(tokenizer), "examples": texts.sha256}
trained = training.train(
    foundation.model,
    texts,
    settings.training,
    run,
    hashes=hashes,
    mesh=mesh,
    deadline_s=session.training_s(evaluation_s, exported=size),
)

# %%
figure = report.plot_training(trained.history, seed=SEED, title="Reading")
page.figure("Loss while reading", figure)

# %% [markdown]
# ## Practice
# After reading comes practice: fresh problems of all levels, in smaller batches at a quarter of the
# rate. All levels, because a practice of the easy ones alone unlearns the others within 500 steps.
# The quick recipe leaves it out, and a session that was over before all was read leaves it to the
# next one.

# %%
documents = tokens.foundation_documents(rows.practice, seed=SEED + 1)
encoded = tokens.encode_documents(tokenizer, documents)
history, practised = trained.history, ()
print(f"{len(encoded)} texts to practise on")

# %%
if encoded and trained.left == 0:
    texts = tokens.training_data(encoded, val_texts, settings.practice_batching, row_multiple=fsdp)
    trained = training.train(
        foundation.model,
        texts,
        settings.practice_training,
        run,
        name="practice",
        hashes={**hashes, "practice": texts.sha256},
        mesh=mesh,
        deadline_s=session.training_s(evaluation_s, exported=size),
    )
    practised = trained.history

# %%
if practised:
    figure = report.plot_training(practised, seed=SEED, title="Practice")
    page.figure("Loss in practice", figure)

# %% [markdown]
# ## Evaluation
# Held-out problems, asked in the model's own form (`#### N`) and answered greedily.

# %%
held_out = task.examples(rows.test)
stages = evaluation.evaluate_stages(foundation, {"base": (task, settings.greedy)}, held_out)
page.table(report.stage_table(task, stages))

# %%
page.figure("Right answers by level", report.plot_groups(task, stages, seed=SEED))

# %% [markdown]
# ## Verdict
# What the field's experience asks of a run that learnt something. Where a line says `not met`, its
# last column says what to try next.

# %%
page.verdicts(report.foundation_verdicts(task, stages[0], [*history, *practised]))

# %% [markdown]
# ## Samples
# One problem of each kind: read them before believing a number.

# %%
page.samples(stages, count=4)

# %% [markdown]
# ## Export and report
# A Hugging Face folder, in bf16, with a manifest of how it was made and what it can do.

# %%
made = (run.parameters, rows, stages[0], [*history, *practised])
manifest = report.foundation_manifest(*made)
models.save_model(foundation.model, tokenizer, run.export, manifest=manifest, dtype="bfloat16")

# %%
about = {"model": settings.size, "data": rows.origin, "hashes": hashes}
report.finish(run, stages, page, trained=trained, **about)

# %% [markdown]
# ## Summary
# The model reads a word problem and writes its steps and `#### N`. It has never been shown
# `<reasoning>` and `<answer>` together. **Next:** `v1_sft_format` teaches that, from this export
# (`-p MODEL runs/v0_foundation/latest/export`) or from the one that ships with `nblib`.
