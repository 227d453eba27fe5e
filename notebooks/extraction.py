# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: sft
#     task: extraction
# ---

# %% [markdown]
# # Extraction · SFT: pages read into JSON
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# A strong model has read pages into JSON; a small one learns to do it in its place. Every value is
# judged by itself: right, wrong, left out, or made up. The same models are also asked under a
# grammar, which makes each answer valid, and the tables show what that is worth and what it is not.
#
# | | |
# |---|---|
# | **Goal** | slots filled as the strong model does, none made up, in valid JSON |
# | **Hardware** | a laptop's CPU (embedded model), or a Kaggle TPU v5e-8 (Gemma 3) |
# | **Minutes** | CPU, built-in shop pages: under 15; a file of 14,000 short texts: under 40 |
# | **Inputs** | nothing, or a table of examples (DuckDB, `.jsonl`); a model by name, folder, GGUF |
# | **Outputs** | `runs/extraction/<run>/`: `export/`, every slot's figures, a report |
# | **Next** | [v2_grpo] with `TASK = "extraction"` rewards right slots |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/extraction.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/extraction.ipynb
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

from dataclasses import replace

from IPython.display import display

from nblib import evaluation, hosts, models, report, sources, tasks, tokens, training

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile", `-1` means all there are. What to train, and on what:

# %% tags=["parameters-data"]
MODEL = ""  # embedded, gemma3-270m, gemma3-1b-it, a folder, a .gguf file, or "adapters::base"
DTYPE = ""  # bfloat16, float32: of frozen weights; what is trained is float32
TASK = "extraction"
EXAMPLES = ""  # "" for built-in shop pages, or a .duckdb or .jsonl file with a table of examples
TASKS = ""  # kinds of examples, with commas between them: "navpage_classifier"; "" for all
REVIEW = ""  # a run's review.csv that a person has marked: its marks correct the held-out pages
NUM_SAMPLES = 0  # training rows: 10 to 50 to try things out, -1 for all
NUM_EPOCHS = 0
MAX_LENGTH = 0  # tokens; longer examples are left out and counted
ROPE_FACTOR = 0  # 1, 2, 4: of the context, 32,768 tokens; 0 is the model's own

# %% [markdown]
# How to train:

# %% tags=["parameters-training"]
LEARNING_RATE = 0.0
LORA_RANK = 0  # -1 trains all weights
LORA_ALPHA = 0.0
BATCH_TOKENS = 0  # tokens a batch, padding included
GRADIENT_ACCUMULATION = 0  # batches a step
PACKING = ""  # on, off: several examples a row, for less padding
REMAT = False  # gradient checkpointing: recompute activations; always on above 8,192 tokens
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
EVAL_SAMPLES = 0  # held-out pages, -1 for all
MAX_NEW_TOKENS = 0
JUDGE = ""  # endpoint: a model, by NBLIB_JUDGE_URL, _MODEL and _KEY, of slots "judge" compares
JUDGE_BUDGET = 0  # requests to it at most

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded.

# %%
session = hosts.begin(hosts.SftSettings, globals())
settings, mesh = session.settings, session.mesh
run = session.start_run("extraction")
task = tasks.get_task(settings.task)
page = report.Page(title="Extraction: pages read into JSON", task=task, seed=SEED)

# %% [markdown]
# ## Data
# Rows with a page, a strong model's answer, and what each slot is. HTML is cleaned to what a reader
# sees. A publisher's split is kept; else whole domains are held out, so that the model is asked
# about shops it has never seen. Training rows that repeat a held-out row are left out, and named.

# %%
data = sources.get_dataset(
    settings.data,
    task=settings.task,
    slugs=settings.slugs,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    seed=SEED,
)
learnable, asked = (tasks.normalise_extractions(rows) for rows in (data.train, data.test))
print(f"train: {learnable}\ntest: {asked}")
display(report.examples_table(task.examples(learnable.rows[:1])), report.rows_table(data))

# %% [markdown]
# How often a slot is rightly null says how easy it is to make something up. Of the values that
# should stand in their page word for word: how many do, before cleaning and after it.

# %%
page.table(report.gold_table(learnable))

# %% [markdown]
# A slice of train is kept for the validation loss; the test split is read by the evaluation alone.
# Where a person has looked at held-out values, those that are right too are accepted, and those
# whose gold is wrong are not counted.

# %%
chosen, _ = tasks.choose_examples(task, learnable.rows, settings.num_samples, seed=SEED)
train_examples, val_examples = sources.split_validation(chosen)
held_out, _ = tasks.choose_examples(task, asked.rows, settings.eval_samples, seed=SEED)
reviewed = tasks.apply_review(settings.reviewed, held_out)
held_out = reviewed.examples
print(f"{len(train_examples)} to train, {len(val_examples)} to validate, {len(held_out)} held out")
print(reviewed)

# %% [markdown]
# ## Model
# Loaded by name, always with the tokenizer of its own folder. A grammar is made of every example's
# slots now: what a grammar cannot enforce is refused here, by its name. The kinds of pages go into
# the export, so that `python -m nblib extract` asks a page as the examples were asked.

# %%
how = {"dtype": settings.dtype, "rope_factor": settings.rope_factor}
base = models.get_gemma_ref_model(settings.model, mesh, **how)
print(base)
grammars = tokens.task_grammars(task, held_out, base.tokenizer)
print(f"{len({one.schema for one in grammars})} grammars for {len(held_out)} pages")
kinds = tasks.page_kinds(train_examples, learnable.rows)
print(kinds)

# %% [markdown]
# ## What is learnt
# Pages are read, answers are learnt. An example that is too long is left out, never cut: its end
# would not be learnt. With a `ROPE_FACTOR` above 1 half of the built-in products stand somewhere in
# a long page, because what is far away must be read too.

# %%
if settings.rope_factor > 1 and settings.data == "builtin":
    long = {"length": settings.max_length, "seed": SEED}
    train_examples = evaluation.with_long_pages(train_examples, task, base.tokenizer, **long)
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
# the training will write.

# %%
model = models.get_trainable_model(base.model, mesh, settings.lora, seed=SEED)
size, trained_size = models.parameter_count(base.model), models.trainable_count(model)
print(f"{trained_size:,} weights are trained")
print("disk:", hosts.check_disk_space(run.path, trained=trained_size, exported=size))

# %% [markdown]
# ## Base, and a baseline
# Before anything is trained: greedily, and under the grammar of each example's slots. The baseline
# is no model: each slot gets the longest training value that stands in the page.

# %%
greedy = settings.greedy
grammar = replace(greedy, constrained=True)
before = evaluation.evaluate_stages(
    base,
    {"base": (task, greedy), "base_grammar": (task, grammar)},
    held_out,
    enabled=settings.eval_at_end,
    kept=run.path.parent,  # asked once, for later runs as well
)
lexicon = tasks.Lexicon(train_examples)
baseline = evaluation.stage_of_rule("lexicon", lexicon, task, held_out, greedy)

# %% [markdown]
# ## What the RoPE factor costs
# Global layers see every page, also a short one, at a scale that they were not trained on. So with
# a `ROPE_FACTOR` above 1 the same pages are asked without it, before anything is trained.

# %%
plain = evaluation.evaluate_stages(
    base.at_rope_factor(1),
    {"base_grammar_factor_1": (task, grammar)},
    held_out,
    enabled=settings.eval_at_end and settings.rope_factor > 1,
)
short = evaluation.paired_by_group((*plain, before[-1]), task) if plain else {}
if short:
    title = f"Pages as they are: RoPE factor {base.rope_factor:g} over 1, before training"
    page.table(report.paired_table(short.items(), title=title, heading="pages"))

# %% [markdown]
# ## Training
# One line about every 15 seconds. The evaluation and the export at the end get their time first,
# the training what is left of the session.

# %%
hashes = {**base.hashes, "examples": texts.sha256, **data.sha256}
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
# gets its name only if it answers as the model in memory does. Its `extraction.json` says how each
# kind of page is asked, by which schema it is answered, and one answer to try another engine on.

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
    files=evaluation.package_files(task, kinds, held_out, greedy),
)

# %% [markdown]
# ## Tuned
# The same pages, without and with the grammar. An answer that is cut at the token limit stays cut,
# also under the grammar: it is never repaired.

# %%
after = evaluation.evaluate_stages(
    tuned,
    {"tuned_grammar": (task, grammar), "tuned": (task, greedy)},
    held_out,
    enabled=settings.eval_at_end,
)
stages = (*before, baseline, *after) if after else ()

# %% [markdown]
# ## Needles in long pages
# With a `ROPE_FACTOR` above 1: held-out products within filler, at every depth of pages of several
# lengths, longer than any that was learnt. What is low at a length is not read that far away.

# %%
needles = evaluation.needle_grid(
    tuned,
    task,
    held_out,
    greedy,
    most=settings.needle_tokens,
    enabled=settings.eval_at_end and settings.rope_factor > 1,
)
if needles:
    window = base.model.config.sliding_window_size
    page.table(report.needle_table(task, needles, window=window))

# %% [markdown]
# ## Result
# Valid JSON is not the metric: a grammar makes all of it valid, and no value right. `slot f1`
# counts leaves over all pages; `invented` are slots filled that are rightly null.

# %%
page.table(report.stage_table(task, stages))

# %%
shown = ("schema_valid", "slot_precision", "slot_recall", "slot_f1", "perfect_record", "invented")
page.figure("All stages", report.plot_stages(task, stages, shown, seed=SEED))

# %% [markdown]
# ## Slot by slot
# Where a slot is low, look at how its leaves came out: omitted ones want more examples that say
# it, invented ones more that do not.

# %%
page.table(report.slots_table(stages))
if after:
    confused = evaluation.confusion(after[-1])
    page.table(report.confusion_table(confused, stage="tuned"))

# %% [markdown]
# ## A judge
# Where a slot's comparator is `judge`, what is unequal can be asked of a model. First it is asked
# of pairs made of gold, whose verdict is known: one that does not agree with them judges nothing.
# The figures above stay as they are; these are in `judge.json`, each question in `judge.jsonl`.

# %%
judge = evaluation.find_judge(settings.judge, run.path, requests=settings.judge_budget)
judged = evaluation.judge_stages(
    judge,
    task,
    (before[0], baseline, after[-1]) if after else (),
    train_examples,
    folder=run.path,
    seed=SEED,
)
page.table(*report.judge_tables(judged))

# %% [markdown]
# ## The gain
# The same pages before and after, and with the grammar against without it (paired bootstrap,
# corrected by Holm for several comparisons).

# %%
comparison = evaluation.compare_stages(stages, task) if stages else None
if comparison:
    page.table(report.gain_table(comparison))

# %% [markdown]
# ## What fails, and what to do about it
# The first rule of the form that an answer broke; then the kinds of wrong values, for all stages.

# %%
page.table(report.failures_table(task, evaluation.schema_failures(after, task)))
if stages:
    failures = evaluation.failure_counts(stages, task)
    page.figure("Failures", report.plot_failures(stages, failures, seed=SEED))

# %% [markdown]
# ## Values in their pages
# Each value marked where it stands: what was read, and what should have been.

# %%
if after:
    page.table(report.grounding_table(after[-1], count=6))

# %% [markdown]
# ## What to look at
# Slots that are right before the training and wrong after it, and what a judge was unsure of, in
# `review.csv`: is the answer right as well, or the gold wrong? Mark them there, and give the file
# as `REVIEW`.

# %%
unsure = judged.unsure if judged else ()
print(evaluation.keep_review(run, (*before, *after), unsure=unsure))

# %% [markdown]
# ## Verdict
# The targets of this run, and what to try where one was missed.

# %%
page.verdicts(report.sft_verdicts(task, stages))

# %% [markdown]
# ## Samples
# The same page before and after.

# %%
page.samples((*before[:1], *after[-1:]), count=4)

# %% [markdown]
# ## Report
# `report.html` with everything above, a card for each exported folder, `result.json`,
# `comparison_metrics.json`, and every failure in `schema_failures_debug.jsonl`.

# %%
about = {"model": base.name, "data": data.origin, "hashes": hashes}
if settings.rope_factor > 1:
    about["needles"] = {stage.name: stage.by_group for stage in needles}
    about["rope_factor_over_1"] = short
about["review"] = reviewed.counts
report.finish(run, stages, page, trained=trained, comparison=comparison, **about)

# %% [markdown]
# ## Summary
# The grammar repairs the form, the training the values: compare `base grammar` with `tuned`. Where
# `tuned grammar` is no better than `tuned`, the model needs no grammar, only its guarantee.
# **Next:** `v2_grpo` with `TASK = "extraction"` and this run's export as `MODEL` rewards right
# slots.
