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

from nblib.delivery.install import install_packages

install_packages("0.1.0")

# %% [markdown]
# ## Imports

# %%
import time

from IPython.display import Image, Markdown, display
from nblib.evaluation.plots import figure_png, plot_levels, plot_stages
from nblib.evaluation.plots_comparison import plot_failures, plot_gains
from nblib.evaluation.report import write_report
from nblib.evaluation.samples import pick_samples
from nblib.evaluation.sft import truncation_warnings
from nblib.evaluation.tables import stage_table
from nblib.evaluation.tables_comparison import comparison_tables, enough_line, gain_table

from nblib.delivery.ladder import find_candidates
from nblib.delivery.place import where_am_i
from nblib.delivery.secrets import provide_tokens
from nblib.delivery.settings import EvalSettings
from nblib.evaluation.candidates import answer_all, settings_of
from nblib.evaluation.comparable import comparable
from nblib.evaluation.comparison import (
    compare_stages,
    comparison_lead,
    comparison_metrics,
    failure_counts,
    schema_failures,
)
from nblib.evaluation.forgetting import forgetting, forgetting_checks, perplexities
from nblib.evaluation.votes import vote_all
from nblib.files import write_json, write_jsonl
from nblib.models.mesh import device_mesh, mesh_summary
from nblib.runs import finish_run, start_run, write_manifest
from nblib.sources.datasets import get_dataset
from nblib.sources.rows import filter_levels, sample_rows
from nblib.tasks.gsm8k import GSM8K

started = time.monotonic()

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile"; `-1` means all there are.

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
STAGES = []  # "name=model@style", "name=adapters::base", "name=file.jsonl:stage"; []: the ladder
DATA = ""  # builtin, gsm8k
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
SVAMP_DIR = ""  # folder of SVAMP.json, or "hub"; "" asks NBLIB_SVAMP_DIR
DIFFICULTY_FILTER = []  # levels (numbers of steps) to judge on, for example [4, 5]
EVAL_SAMPLES = 0  # held-out questions, -1 for all
SHOTS = 0  # worked examples in the few-shot prompt, drawn from train
MAX_NEW_TOKENS = 0
SAMPLES_PER_QUESTION = 0  # above 1: pass@k and maj@k of that many sampled answers
TEMPERATURE = 0.7  # of the sampled answers
TOP_P = 0.95
FORGETTING_SAMPLES = 0  # questions of each check outside the task
ALLOW_MISMATCH = False  # compare files that were made with other items, prompts or limits
SEED = 0

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded.

# %%
place = where_am_i(PROFILE)
settings = EvalSettings.of(globals())
mesh = device_mesh()
print(place, mesh_summary(mesh), sep="\n")
print(f"tokens     {provide_tokens() or 'none'}")

# %% [markdown]
# A run that was killed is found again by its parameters and asks only what is still missing.

# %%
candidates, notes = find_candidates(
    settings.stages, reads={"sft": "v1_sft_format", "grpo": "v2_grpo"}
)
parameters = {**settings.parameters, "stages": candidates}
run = start_run("eval", parameters)
display(Markdown("\n".join(f"- {name}: `{value}`" for name, value in parameters.items())))

# %% [markdown]
# ## Questions
# Of the test split, which no training and no choice of settings has seen. The worked examples of
# the few-shot prompt come from train.

# %%
data = get_dataset(
    settings.data,
    folder=settings.gsm8k_dir,
    num_train=200,
    num_test=settings.eval_samples,
    levels=settings.levels or settings.builtin_levels,
    seed=SEED,
)
levelled, _ = filter_levels(data.test, settings.levels)
asked = GSM8K.examples(sample_rows(levelled, settings.eval_samples, seed=SEED))
shots = GSM8K.examples(sample_rows(data.train, settings.shots, seed=SEED))
print(data.origin, *data.notes, *notes, sep="\n")
print(f"{len(asked)} questions; worked examples: {', '.join(shot.id for shot in shots)}")

# %% [markdown]
# ## The ladder
# A base model is not only weak, it may also be asked badly. So it gets three chances: the question
# alone, the prompt that asks for the format, and that prompt with worked examples. What was trained
# is asked with the format's prompt and no examples. Greedy, so that nothing is left to luck.

# %%
greedy = settings.greedy
answered = answer_all(
    candidates, GSM8K, asked, greedy, shots=shots, mesh=mesh, folder=run.path / "answers"
)
stages, mismatches = comparable(
    answered,
    GSM8K,
    from_files=[one.name for one in candidates if one.is_file],
    allow_mismatch=settings.allow_mismatch,
)
metrics = {stage.name: stage.metrics for stage in stages}
display(Markdown(stage_table(metrics)))

# %% [markdown]
# `lenient accuracy` takes the last number of the text, whatever the form: it says what a model can
# do that was never taught the form. If it stands still while `answer accuracy` rises, the gain is
# the form alone.

# %%
shown = ("format_accuracy", "answer_accuracy", "lenient_accuracy", "truncation_rate")
figures = {"The ladder": plot_stages(metrics, shown, seed=SEED)}
display(Image(figure_png(figures["The ladder"])))

# %% [markdown]
# ## The gain
# Only items that one stage solves and the other does not can tell them apart. McNemar's exact test
# counts them; the interval leaves 0 out where that test gives p < 0.05; `p, Holm` is corrected for
# testing several.

# %%
comparison = compare_stages(stages)
display(Markdown(gain_table(comparison).markdown()))
print(enough_line(comparison))

# %%
figures["The gain, and how sure it is"] = plot_gains(comparison, seed=SEED)
display(Image(figure_png(figures["The gain, and how sure it is"])))

# %%
by_level = {stage.name: stage.by_level for stage in stages if stage.by_level}
if by_level:
    figures["Right answers whatever the form, by level"] = plot_levels(
        by_level, seed=SEED, rate="lenient_accuracy"
    )
    display(Image(figure_png(figures["Right answers whatever the form, by level"])))

# %% [markdown]
# ## What fails, and how
# The first rule that a completion broke. A wrong answer in the right form is what remains when the
# form is learnt.

# %%
failures = failure_counts(stages)
figures["What became of the items"] = plot_failures(failures, len(stages[0].records), seed=SEED)
display(Image(figure_png(figures["What became of the items"])))

# %% [markdown]
# ## What got worse
# A training can cost what it does not measure. The first and the last model are asked questions
# outside the task, without any format, and read worked solutions in plain words (perplexity: lower
# is less surprised).

# %%
checks, left_out = forgetting_checks(
    settings.svamp_dir, count=settings.forgetting_samples, seed=SEED
)
print(*left_out, sep="\n")
models = [one.source for one in candidates if not one.is_file]
forgot = forgetting(models, checks, GSM8K, greedy, mesh=mesh, folder=run.path / "answers")
surprise = perplexities(models, asked[: settings.forgetting_samples], mesh=mesh)

# %% [markdown]
# ## Several answers to each question
# With `SAMPLES_PER_QUESTION` above 1. `pass@k` (one of k is right) is no accuracy: it grows with
# every guess. `maj@k` lets the k answers vote.

# %%
votes = vote_all(
    candidates,
    GSM8K,
    asked,
    settings.sampled,
    samples=settings.samples_per_question,
    shots=shots,
    mesh=mesh,
    folder=run.path / "answers",
)

# %% [markdown]
# ## All tables

# %%
predictions = [record for stage in stages for record in stage.records]
tables = comparison_tables(comparison, failures, forgot, surprise, votes, predictions)
display(Markdown("\n\n".join(f"**{name}**\n\n{one.markdown()}" for name, one in tables.items())))

# %% [markdown]
# ## Samples
# The same question, the last two stages.

# %%
samples = pick_samples(predictions, count=6, seed=SEED)
for sample in samples[:3]:
    print(f"{sample['question']}\n  wanted {sample['reference']}  ({sample['kind']})")
    for name, record in list(sample["stages"].items())[-2:]:
        print(f"\n[{name}]\n{record['completion']}")
    print("-" * 60)

# %% [markdown]
# ## Files and report

# %%
write_jsonl(run.path / "predictions.jsonl", predictions)
write_jsonl(run.path / "schema_failures_debug.jsonl", schema_failures(stages))
hashes = {f"data/{split}": digest for split, digest in data.sha256.items()}
write_manifest(run, hashes=hashes, devices=place.devices)
asked_how = settings_of(candidates, shots)
write_json(
    run.path / "comparison_metrics.json",
    comparison_metrics(
        comparison,
        stages,
        failures=failures,
        forgetting=forgot,
        perplexity=surprise,
        votes=votes,
        settings={**parameters, "asked": asked_how, "mismatches": mismatches},
        hashes=hashes,
    ),
)

# %%
result = {
    "notebook": "eval",
    "profile": settings.profile,
    "seed": SEED,
    "wall_s": time.monotonic() - started,
    "model": candidates[-1].source,
    "data": data.origin,
    "stages": metrics,
    "levels": by_level,
}
write_report(
    run.path / "report.html",
    title="Eval: base against tuned",
    lead=comparison_lead(comparison, stages),
    facts={
        "data": data.origin,
        "questions": f"{len(stages[0].records):,}",
        "smallest gain that shows": enough_line(comparison),
    },
    verdicts=(),
    stages=metrics,
    figures=figures,
    samples=samples,
    tables=tables,
    config={**parameters, "asked": asked_how},
    manifest={"hashes": hashes},
    warnings=[*mismatches, *truncation_warnings(metrics, judged=""), *notes],
)
finish_run(run, result)
print(f"{run.path}: {result['wall_s'] / 60:.1f} minutes")

# %% [markdown]
# ## Summary
# Read the table of gains first: a gain whose interval holds zero is not shown. Then `lenient
# accuracy`: the form is worth something, but it is not arithmetic. Then the regressions: they are
# the questions to look at by hand.
