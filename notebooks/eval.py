# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: eval
#     task: gsm8k
#     reads: [v1_sft_format, v2_grpo]
# ---

# %% [markdown]
# # Eval: base against tuned, honestly
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# Did the training help, how sure is that, what got worse, and what do the failures look like? All
# stages answer the same held-out questions under one scorer, and the difference is judged item by
# item.
#
# | | |
# |---|---|
# | **Goal** | the gain of the last stage over each earlier one, with its interval |
# | **Hardware** | a laptop's CPU (embedded model), or a Kaggle TPU v5e-8 (Gemma 3 1B) |
# | **Minutes** | CPU, 1,319 built-in problems, five stages: 3 |
# | **Inputs** | the exports of v1 and v2: local runs, attached Kaggle outputs, or folders |
# | **Outputs** | `runs/eval/<run>/`: `comparison_metrics.json`, predictions, failures, a report |
# | **Next** | what failed says what to train next, in [v1_sft_format] or [v2_grpo] |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/eval.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/eval.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
# [kaggle-badge]: https://kaggle.com/static/images/open-in-kaggle.svg
# [v1_sft_format]: https://github.com/nblib-suite/nblib/blob/main/notebooks/v1_sft_format.ipynb
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

from nblib import evaluation, hosts, report, sources, tasks

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile", `-1` means all there are. What to compare:

# %% tags=["parameters-data"]
STAGES = []  # "name=model@style", "name=adapters::base", "name=file.jsonl:stage"; []: the ladder
TASK = "gsm8k"
DATA = ""  # builtin, gsm8k
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
SVAMP_DIR = ""  # folder of SVAMP.json, or "hub"; "" asks NBLIB_SVAMP_DIR
DIFFICULTY_FILTER = []  # levels (numbers of steps) to judge on, for example [4, 5]
EVAL_SAMPLES = 0  # held-out questions, -1 for all

# %% [markdown]
# How to ask, and what else to measure. `adapters::base` above are adapters over a base that is in
# another folder.

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
SEED = 0
SHOTS = 0  # worked examples in the few-shot prompt, drawn from train
MAX_NEW_TOKENS = 0
SAMPLES_PER_QUESTION = 0  # above 1: pass@k and maj@k of that many sampled answers
TEMPERATURE = 0.7  # of the sampled answers
TOP_P = 0.95
FORGETTING_SAMPLES = 0  # questions of each check outside the task
ALLOW_MISMATCH = False  # compare files that were made with other items, prompts or limits

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded. A run that was killed is found by the
# values in the second table and asks only what is still missing.

# %%
session = hosts.begin(hosts.EvalSettings, globals())
settings, task = session.settings, tasks.get_task(session.settings.task)
page = report.Page(title="Eval: base against tuned", task=task, seed=SEED)
ladder = {"sft": "v1_sft_format", "grpo": "v2_grpo"}
candidates, notes = hosts.find_candidates(settings.stages, reads=ladder)
run = session.start_run("eval", stages=candidates)
page.warn(*notes)

# %% [markdown]
# ## Questions
# Of the test split, which no training and no choice of settings has seen. The worked examples of
# the few-shot prompt come from train.

# %%
data = sources.get_dataset(
    settings.data,
    task=settings.task,
    folder=settings.data_folder,
    num_train=200,
    num_test=settings.eval_samples,
    levels=settings.levels or settings.builtin_levels,
    seed=SEED,
)
examples = task.examples(task.normalise(data.test)[:1])
display(report.rows_table(data), report.examples_table(examples))

# %%
levels = {"groups": settings.levels, "seed": SEED}
chosen, _ = tasks.choose_examples(task, data.test, settings.eval_samples, **levels)
shots, _ = tasks.choose_examples(task, data.train, settings.shots, seed=SEED)
print(f"{len(chosen)} questions; worked examples: {', '.join(shot.id for shot in shots)}")

# %% [markdown]
# ## The ladder
# A base model is not only weak, it may also be asked badly. So it gets three chances: the question
# alone, the prompt that asks for the format, and that prompt with worked examples. What was trained
# is asked with the format's prompt and no examples. Greedy, so that nothing is left to luck.

# %%
asking = evaluation.Asking(shots=shots, folder=run.path / "answers", mesh=session.mesh)
answered = evaluation.answer_all(candidates, task, chosen, settings.greedy, asking)
stages, mismatches = evaluation.comparable(
    answered, task, candidates, allow_mismatch=settings.allow_mismatch
)
page.warn(*mismatches)
page.table(report.stage_table(task, stages))

# %% [markdown]
# A lenient metric, such as `lenient accuracy` (the last number of the text, in any form),
# says what a model can do that was never taught the form. If it stands still while the headline
# rises, the gain is the form alone. `joint accuracy` counts answers that are right *and* in strict
# form.

# %%
page.figure("The ladder", report.plot_stages(task, stages, seed=SEED))

# %% [markdown]
# ## The gain
# Only items that one stage solves and the other does not can tell them apart. McNemar's exact test
# counts them; the interval leaves 0 out where that test gives p < 0.05; `p, Holm` is corrected for
# testing several (Holm's method).

# %%
comparison = evaluation.compare_stages(stages, task)
page.table(report.gain_table(comparison))

# %%
page.figure("The gain, and how sure it is", report.plot_gains(task, comparison, seed=SEED))
page.figure("By group", report.plot_groups(task, stages, comparison.metric, seed=SEED))

# %% [markdown]
# ## What fails, and how
# The first rule that a completion broke. A wrong answer in the right form is what remains when the
# form is learnt.

# %%
failures = evaluation.failure_counts(stages, task)
page.figure("What became of the items", report.plot_failures(stages, failures, seed=SEED))

# %% [markdown]
# ## What got worse
# A training can cost what it does not measure. The first and the last model are asked questions
# outside the task, without any format, and read worked solutions in plain words (perplexity: lower
# is less surprised).

# %%
plain = task.in_base_form
solutions, _ = tasks.choose_examples(plain, data.test, settings.eval_samples, **levels)
forgotten = evaluation.measure_forgetting(
    candidates,
    task,
    solutions,
    settings.greedy,
    asking,
    count=settings.forgetting_samples,
    seed=SEED,
    folder=settings.svamp_dir,
)
print(*forgotten.left_out, sep="\n")

# %% [markdown]
# ## Several answers to each question
# With `SAMPLES_PER_QUESTION` above 1. `pass@k` (one of k is right) is no accuracy: it grows with
# every guess. `maj@k` lets the k answers vote.

# %%
votes = evaluation.vote_all(
    candidates, task, chosen, settings.sampled, asking, samples=settings.samples_per_question
)

# %% [markdown]
# ## All tables

# %%
found = {"forgotten": forgotten, "votes": votes}
page.table(*report.comparison_tables(task, comparison, stages, failures, **found))

# %% [markdown]
# ## Samples
# The same question, the last two stages.

# %%
page.samples(stages, count=6)

# %% [markdown]
# ## Files and report
# `report.html` with everything above, `comparison_metrics.json` and `schema_failures_debug.jsonl`.

# %%
hashes = {f"data/{split}": digest for split, digest in data.sha256.items()}
asked = evaluation.how_asked(candidates, asking, mismatches)
about = {"model": candidates[-1].source, "data": data.origin, "hashes": hashes}
report.finish(run, stages, page, comparison=comparison, asked=asked, **about, **found)

# %% [markdown]
# ## Summary
# Read the table of gains first: a gain whose interval holds zero is not shown. Then `lenient
# accuracy`: the form is worth something, but it is not arithmetic. Then the regressions: they are
# the questions to look at by hand.
