# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: sft
#     task: proofs
# ---

# %% [markdown]
# # Proofs · SFT: inequalities, proved line by line
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# A model learns to prove inequalities in a small language, one step a line. Every line is checked
# by exact arithmetic: a proof is verified or it is not, and no model judges. Three questions are
# answered apart: how much was learnt, whether it reaches to compositions that were never shown, and
# whether more data is worth it.
#
# | | |
# |---|---|
# | **Goal** | verified proofs of statements whose templates were held out |
# | **Hardware** | a laptop's CPU (embedded model), or a Kaggle TPU v5e-8 (Gemma 3 1B) |
# | **Minutes** | CPU, built-in inequalities: under 30 |
# | **Inputs** | nothing, or a `.jsonl` file of proofs that a strong model wrote; a model |
# | **Outputs** | `runs/proofs/<run>/`: `export/`, every proof with its verdict, a report |
# | **Next** | [v2_grpo] with `TASK = "proofs"` rewards verified proofs |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/proofs.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/proofs.ipynb
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
MODEL = ""  # embedded, gemma3-270m, gemma3-1b-it, a folder, a .gguf file, or "adapters::base"
DTYPE = ""  # bfloat16, float32: of frozen weights; what is trained is float32
TASK = "proofs"  # or text_proofs: free texts, whose proofs a judge reads at the end
DATA = ""  # builtin, or a .jsonl file: statement, proof, technique a line, or what `verify` writes
NUM_SAMPLES = 0  # training rows: 10 to 50 to try things out, -1 for all
NUM_EPOCHS = 0
MAX_LENGTH = 0  # tokens; longer examples are left out and counted
CURVE = []  # shares of the rows to train on as well, such as [0.125, 0.5]; [1.0] is no curve

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
EVAL_SAMPLES = 0  # held-out statements, -1 for all
COMPOSED_SAMPLES = 0  # held-out compositions
SHOTS = 0  # worked examples in the few-shot prompt, from train
MAX_NEW_TOKENS = 0
JUDGE = ""  # endpoint: a model, by NBLIB_JUDGE_URL, _MODEL and _KEY, that reads free texts
JUDGE_BUDGET = 0  # requests to it at most

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded.

# %%
session = hosts.begin(hosts.SftSettings, globals())
settings, mesh = session.settings, session.mesh
run = session.start_run("proofs")
task = tasks.get_task(settings.task)
page = report.Page(title="Proofs: inequalities, line by line", task=task, seed=SEED)

# %% [markdown]
# ## Data
# A statement and its proof. Built-in statements are made forward, from known inequalities, so each
# is true and has a proof. The test split has other templates than the training rows: a template is
# a statement without its numbers.

# %%
data = sources.get_dataset(
    settings.data,
    task=settings.task,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    seed=SEED,
)
passed = task.normalise(data.train)
display(report.examples_table(task.examples(passed[:1])), report.rows_table(data))
page.table(report.proof_losses_table(data), report.proof_rows_table(task, data))

# %% [markdown]
# A slice of train is kept for the validation loss; the test split is read by the evaluation alone.
# The compositions put two techniques together that no training row puts together so. The proof of
# every row is checked here: one that is not verified is refused by its name. Of a file with
# verdicts, only what passed is learnt: the table above says how many were lost where.

# %%
chosen, _ = tasks.choose_examples(task, data.train, settings.num_samples, seed=SEED)
train_examples, val_examples = sources.split_validation(chosen)
held_out, _ = tasks.choose_examples(task, data.test, settings.eval_samples, seed=SEED)
composed = task.examples(sources.composed_rows(settings.composed_samples))
print(f"{len(train_examples)} to train, {len(val_examples)} to validate, {len(held_out)} held out")
print(f"{len(composed)} held-out compositions")

# %% [markdown]
# Proofs as the checker sees them: a mark for each line, none for a free text. `Sum 1/2(1)+(2)` adds
# half of line 1 and line 2; `cyclic` stands for a line's rotations, a for b for c. Each is of
# another technique: these are also the worked examples of the few-shot prompt.

# %%
shots = evaluation.varied_shots(train_examples, settings.shots, seed=SEED)
display(report.proof_table(task, shots))

# %% [markdown]
# ## Model
# Loaded by name, always with the tokenizer of its own folder.

# %%
base = models.get_gemma_ref_model(settings.model, mesh, dtype=settings.dtype)
print(base)

# %% [markdown]
# ## What is learnt
# Statements are read, proofs are learnt. An example that is too long is left out, never cut: a
# proof without its last line proves nothing.

# %%
encoded = [
    tokens.encode_task(base.tokenizer, task, part) for part in (train_examples, val_examples)
]
texts = tokens.training_data(*encoded, settings.batching, row_multiple=mesh.shape["fsdp"])
print(texts)
page.warn(*report.plan_warnings(texts, settings.accumulation))
print(tokens.show_loss_mask(base.tokenizer, texts.examples[0]))

# %% [markdown]
# ## What is trained
# All weights of a small model, or LoRA adapters over a large one. The disk must have space for what
# the trainings will write, those of the learning curve too.

# %%
model = models.get_trainable_model(base.model, mesh, settings.lora, seed=SEED)
size, trained_size = models.parameter_count(base.model), models.trainable_count(model)
print(f"{trained_size:,} weights are trained")
needed = settings.trainings * trained_size
print("disk:", hosts.check_disk_space(run.path, trained=needed, exported=size))

# %% [markdown]
# ## Base
# Before anything is trained, greedily: alone, and with worked examples of different techniques in
# its prompt. A base that was never shown the language cannot know it; the examples show it.

# %%
greedy = settings.greedy
before = evaluation.evaluate_stages(
    base,
    {"base": (task, greedy), "base_few_shot": (task, greedy, shots)},
    held_out,
    enabled=settings.eval_at_end,
    kept=run.path.parent,  # asked once, for later runs as well
)
before_composed = evaluation.evaluate_stages(
    base,
    {"base_composed": (task, greedy)},
    composed,
    enabled=settings.eval_at_end,
    kept=run.path.parent,
)

# %% [markdown]
# ## Less data first
# The same training on shares of the rows, each from the base with a schedule of its own, and each
# asked the same held-out statements. A run that was killed goes on where it was. What the shares
# say stands below, beside the training on all rows.

# %%
hashes = {**base.hashes, "examples": texts.sha256, **data.sha256}
recipe = {"batching": settings.batching, "lora": settings.lora, "config": settings.training}
evaluation_s = sum(stage.seconds for stage in (*before, *before_composed))

# %%
points = evaluation.train_on_shares(
    settings.curve,
    base,
    texts,
    run,
    task,
    held_out,
    greedy,
    **recipe,
    hashes=hashes,
    enabled=settings.eval_at_end,
    deadline_s=session.training_s(evaluation_s, exported=size),
)

# %% [markdown]
# ## Training
# One line about every 15 seconds. The evaluation and the export at the end get their time first,
# the training what is left of the session.

# %%
trained = training.train(
    model,
    texts,
    settings.training,
    run,
    hashes=hashes,
    mesh=mesh,
    resume_from=settings.resume_from,
    deadline_s=session.training_s(evaluation_s, exported=size),
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
# The same statements, without and with the same worked examples; then the compositions. A small
# model that was trained without examples in its prompt may well do worse with them: it has never
# read so long a prompt.

# %%
after = evaluation.evaluate_stages(
    tuned,
    {"tuned_few_shot": (task, greedy, shots), "tuned": (task, greedy)},
    held_out,
    enabled=settings.eval_at_end,
)
after_composed = evaluation.evaluate_stages(
    tuned, {"tuned_composed": (task, greedy)}, composed, enabled=settings.eval_at_end
)
stages, of_composed = (*before, *after), (*before_composed, *after_composed)

# %% [markdown]
# ## Result
# `proof verified`: every line is right, and the last one is the statement. `steps checked` says how
# many lines are right, also in proofs that are not verified.

# %%
page.table(report.stage_table(task, stages))

# %%
page.figure("All stages", report.plot_stages(task, stages, seed=SEED))

# %% [markdown]
# ## By technique
# The same statements before and after, each technique apart.

# %%
ends = (*before[:1], *after[-1:])
page.figure("By technique", report.plot_groups(task, ends, seed=SEED))
gains = evaluation.paired_by_group(ends, task)
page.table(report.paired_table(gains.items(), title="Gain by technique", heading="technique"))

# %% [markdown]
# ## Held-out compositions
# Other statements than those above, so they are in none of its comparisons. A model that learnt the
# techniques and not how to put them together does worse here.

# %%
page.table(report.stage_table(task, of_composed, title="Held-out compositions"))
gains = evaluation.paired_by_group(of_composed, task)
page.table(report.paired_table(gains.items(), title="Gain on compositions", heading="composition"))

# %% [markdown]
# ## The gain
# The same statements before and after: what counts are the ones that changed (McNemar's exact test,
# corrected by Holm for several comparisons).

# %%
comparison = evaluation.compare_stages(stages, task) if stages else None
if comparison:
    page.table(report.gain_table(comparison))

# %% [markdown]
# ## Why proofs are refused
# By the first bad line of each, one of them, and what to do about it.

# %%
failures = evaluation.failure_counts(stages, task)
page.table(report.proof_failures_table(task, stages, failures))
if stages:
    page.figure("Failures", report.plot_failures(stages, failures, seed=SEED))

# %% [markdown]
# ## A judge of free texts
# A proof in the language is checked, and no model is asked. With `TASK = "text_proofs"` a judge may
# read the proofs: first those whose truth is known, and attacks on it. Its word counts only where
# few wrong ones pass, and stands in `judge.json`, apart from what is exact.

# %%
judged = evaluation.judge_proofs(
    settings.judge, task, ends, folder=run.path, requests=settings.judge_budget
)
page.table(*report.judged_proofs_tables(judged))

# %% [markdown]
# ## Samples
# The same statement before and after, each line with its mark.

# %%
page.samples(ends, count=4)
page.table(report.proof_samples_table(task, page.picked))

# %% [markdown]
# ## Is more data worth it?
# Each point is a training of its own, from the base to the end of its schedule. What decides is the
# last step: the same statements, asked of the model of fewer rows and of the one of all.

# %%
curve = evaluation.learning_curve(points, after, task, rows=len(texts.examples), trained=trained)
page.table(report.learning_curve_table(task, curve))
page.figure("More data", report.plot_learning_curve(task, curve, seed=SEED))

# %% [markdown]
# ## Verdict
# The targets of this run, and what to try where one was missed.

# %%
page.verdicts(report.sft_verdicts(task, stages))

# %% [markdown]
# ## Report
# `report.html` with everything above, a card for each exported folder, `result.json`,
# `comparison_metrics.json`, and every failure of the form in `schema_failures_debug.jsonl`.

# %%
about = {"model": base.name, "data": data.origin, "hashes": hashes}
measured = (*stages, *of_composed, *(point.stage for point in points))
report.finish(run, measured, page, trained=trained, comparison=comparison, **about)

# %% [markdown]
# ## Summary
# Read `proof verified` beside the compositions: the first says what was learnt, the second how far
# it reaches. Then the curve: where the last doubling still brought something, more rows are the
# cheapest cure. **Next:** `v2_grpo` with `TASK = "proofs"` and this run's export as `MODEL` rewards
# verified proofs, and takes no worked proof at all.
