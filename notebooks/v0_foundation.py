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
# All that is done lives in `nblib`; the notebook only says what is done, in which order, and why.

# %%
import time
from dataclasses import replace

from IPython.display import display

from nblib.evaluation.answers import evaluate_stages
from nblib.evaluation.generate import Decoding
from nblib.files import read_jsonl
from nblib.hosts.budget import check_room, session_budget
from nblib.hosts.inputs import bring_attached_run
from nblib.hosts.place import where_am_i
from nblib.hosts.secrets import provide_tokens
from nblib.hosts.settings import FoundationSettings
from nblib.models.gemma3 import init_model, model_config, parameter_count, save_model
from nblib.models.mesh import device_mesh, mesh_summary
from nblib.models.names import RefModel
from nblib.report import (
    Page,
    finish,
    foundation_manifest,
    foundation_verdicts,
    plot_groups,
    plot_training,
    settings_table,
    stage_table,
)
from nblib.runs import start_run
from nblib.sources.foundation import foundation_rows
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.corpus import corpus_texts, encode_documents, foundation_documents
from nblib.tokens.tokenizer import tokenizer_seal, train_tokenizer
from nblib.tokens.training_data import training_data
from nblib.training.sft import train

started = time.monotonic()

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the recipe". Set any of them to change one thing.

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
RECIPE = "quick"  # quick, full
SIZE = "embedded"  # embedded, tiny, small, medium
DIFFICULTY_FILTER = []  # levels to train on, for example [1, 2]
NUM_SAMPLES = 0  # built-in training problems
NUM_EPOCHS = 0
MAX_LENGTH = 0  # tokens; longer texts are counted and left out, never cut
PACKING = ""  # on, off: several texts a row, for less padding
BATCH_TOKENS = 0  # tokens a batch, padding included
GRADIENT_ACCUMULATION = 1  # batches a step
LEARNING_RATE = 0.0
EVAL_SAMPLES = 0  # held-out problems, shared by the levels
SAVE_INTERVAL = ""  # "100 steps" or "10 min"
SESSION_HOURS = 0.0  # 0: what Kaggle gives (TPU 9, else 12), no limit elsewhere
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
SEED = 0

# %% [markdown]
# ## Configuration
# Where this runs, and how long it may. All parameters are checked here, before anything is made.

# %%
place = where_am_i(PROFILE)
settings = FoundationSettings.of(globals())
budget = session_budget(place, settings.session_hours)
mesh = device_mesh()
print(place, mesh_summary(mesh), budget, sep="\n")
print(f"tokens     {provide_tokens() or 'none'}")

# %% [markdown]
# What the recipe filled in, and the folder that will hold all that is left. A run that was killed,
# or whose session was over, is found again by its parameters, here or in an attached output, and
# goes on.

# %%
parameters = settings.parameters
bring_attached_run("v0_foundation", parameters)
run = start_run("v0_foundation", parameters, devices=place.devices, started=started)
task = GSM8K.in_base_form
page = Page(title="v0 · Foundation: a small Gemma 3 from nothing", task=task, seed=SEED)
display(settings_table(parameters))

# %% [markdown]
# ## Problems
# Stories made from a seed, with as many steps as their level says. The held-out ones share no
# question and no (template, numbers) pair with the training ones.

# %%
rows = foundation_rows(
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
print("\n".join(rows.notes))
print("", *rows.train[0].fields.values(), sep="\n")

# %% [markdown]
# ## Tokenizer
# 544 pieces: the 256 bytes, so that no text is lost, and the commonest fragments. Digits are split
# and the chat markers are single pieces, as in Gemma's own tokenizer.

# %%
documents = foundation_documents(rows.train, seed=SEED)
val_documents = foundation_documents(rows.validation, seed=SEED)
tokenizer = train_tokenizer(corpus_texts(documents[:: len(documents) // 4000 + 1]), vocab_size=544)
print(tokenizer.encode(documents[0].completion, out_type=str))

# %% [markdown]
# ## Tokens
# Most texts are chats, in the surface form that the later notebooks write; some carry the system
# prompt, some the annotations of GSM8K, and a few only practise the tags.

# %%
batching = {**settings.batching, "row_multiple": mesh.shape["fsdp"]}
val_texts = encode_documents(tokenizer, val_documents)
texts = training_data(encode_documents(tokenizer, documents), val_texts, **batching)
print(texts)
print(f"\n{documents[1].prompt}{documents[1].completion}")

# %% [markdown]
# ## Model
# Tunix's own Gemma 3 at a size that a laptop can train: five layers attend to a window, the sixth
# to everything.

# %%
config = model_config(settings.size)
model = init_model(config, seed=SEED)
print(f"{parameter_count(model):,} parameters in {config.num_layers} layers")

# %% [markdown]
# The evaluation and the export at the end get their time first, the training what is left of the
# session. Two CPU cores answer ten problems a second.

# %%
reserved = {"evaluation_s": 0.1 * settings.eval_samples, "exported": parameter_count(model)}
room = check_room(run.path, trained=parameter_count(model), exported=parameter_count(model))
print("disk:", room)
deadline_s = budget.training_s(**reserved)

# %% [markdown]
# ## Training
# The same trainer that the fine-tuning uses, here on all weights. Each line is about 15 seconds.

# %%
hashes = {**tokenizer_seal(tokenizer), "examples": texts.sha256}
trained = train(
    model,
    texts.batches,
    settings.training,
    folder=run.checkpoints,
    metrics_path=run.path / "metrics.jsonl",
    identity={**hashes, **parameters},
    mesh=mesh,
    val_batches=texts.val_batches,
    deadline_s=deadline_s,
)

# %%
history = read_jsonl(run.path / "metrics.jsonl")
page.figure("Loss while reading", plot_training(history, seed=SEED, title="Reading"))

# %% [markdown]
# ## Practice
# After reading comes practice: fresh problems of all levels, in smaller batches at a quarter of the
# rate. All levels, because a practice of the easy ones alone unlearns the others within 500 steps.
# The quick recipe leaves it out, and a session that was over before all was read leaves it to the
# next one.

# %%
if rows.practice and trained.left == 0:
    half = {"epochs": 1, "seed": SEED + 1, "batch_tokens": settings.batch_tokens // 2}
    documents = foundation_documents(rows.practice, seed=SEED + 1)
    practice = training_data(encode_documents(tokenizer, documents), **{**batching, **half})
    print(practice)
    trained = train(
        model,
        practice.batches,
        replace(settings.training, learning_rate=0.25 * settings.learning_rate),
        folder=run.checkpoints / "practice",
        metrics_path=run.path / "metrics_practice.jsonl",
        identity={**hashes, "practice": practice.sha256, **parameters},
        mesh=mesh,
        val_batches=texts.val_batches,
        deadline_s=budget.training_s(**reserved),
    )
    practised = read_jsonl(run.path / "metrics_practice.jsonl")
    page.figure("Loss in practice", plot_training(practised, seed=SEED, title="Practice"))
    history += practised

# %% [markdown]
# ## Evaluation
# Held-out problems, asked in the model's own form and answered greedily.

# %%
foundation = RefModel(
    name=settings.size,
    folder=run.path,
    model=model,
    tokenizer=tokenizer,
    sha256="",  # not saved yet
    root=settings.size,
)
decoding = Decoding(max_new_tokens=320, seed=SEED)
held_out = task.examples(rows.test)
stages = evaluate_stages(foundation, {"base": (task, decoding)}, held_out, mesh=mesh)
page.table(stage_table(task, stages))

# %%
page.figure("Right answers by level", plot_groups(task, stages, seed=SEED))

# %% [markdown]
# ## Verdict
# What the field's experience asks of a run that learnt something. Where a line says `not met`, its
# last column says what to try next.

# %%
page.verdicts(foundation_verdicts(task, stages[0], history))

# %% [markdown]
# ## Samples
# One problem of each kind: read them before believing a number.

# %%
page.samples(stages, count=4)

# %% [markdown]
# ## Export
# A Hugging Face folder, in bf16, with a manifest of how it was made and what it can do.

# %%
manifest = foundation_manifest(parameters, rows, stages[0], history)
save_model(model, tokenizer, run.export, manifest=manifest, dtype="bfloat16")

# %% [markdown]
# ## Result

# %%
about = {"model": settings.size, "data": rows.origin, "hashes": hashes, "trained": trained}
finish(run, stages, page, **about)

# %% [markdown]
# ## Summary
# The model reads a word problem and writes its steps and `#### N`. It has never been shown
# `<reasoning>` and `<answer>` together. **Next:** `v1_sft_format` teaches that, from this export
# (`-p MODEL runs/v0_foundation/latest/export`) or from the one that ships with `nblib`.
