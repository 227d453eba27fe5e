# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nblib:
#     kind: grpo
#     task: gsm8k
#     reads: [v1_sft_format]
# ---

# %% [markdown]
# # v2 · GRPO: better answers from rewards
#
# [![Colab][colab-badge]][colab] [![Kaggle][kaggle-badge]][kaggle]
#
# v1 taught the model *how to say it*. Here it practises: it answers the same question several
# times, the answers are checked, and what led to right ones is made likelier. No worked solution is
# shown any more. v1 and v2 then answer the same held-out questions, and a paired test says whether
# the gain is real.
#
# | | |
# |---|---|
# | **Goal** | more right answers than v1, proven on the same questions, in the same strict form |
# | **Hardware** | a laptop's CPU (embedded model), or a Kaggle TPU v5e-8 (Gemma 3 1B) |
# | **Minutes** | CPU: under 20 with built-in problems, under 10 with GSM8K |
# | **Inputs** | the export of v1: the newest local run, an attached Kaggle output, or a folder |
# | **Outputs** | `runs/v2_grpo/<run>/`: `export/`, `adapters/`, rollouts, a report |
# | **Next** | [eval] compares all stages |
#
# [colab]: https://colab.research.google.com/github/nblib-suite/nblib/blob/main/notebooks/v2_grpo.ipynb
# [kaggle]: https://kaggle.com/kernels/welcome?src=https://github.com/nblib-suite/nblib/blob/main/notebooks/v2_grpo.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
# [kaggle-badge]: https://kaggle.com/static/images/open-in-kaggle.svg
# [eval]: https://github.com/nblib-suite/nblib/blob/main/notebooks/eval.ipynb

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

from IPython.display import Markdown, display

from nblib import evaluation, hosts, models, report, sources, tasks, tokens, training

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile", `-1` means all there are. What to train, and on what:

# %% tags=["parameters-data"]
MODEL = ""  # v1's export or run, adapters, "adapters::base", or a name; "" is the newest v1
DTYPE = ""  # bfloat16, float32: of frozen weights; what is trained is float32
TASK = "gsm8k"
DATA = ""  # builtin, gsm8k
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
NUM_SAMPLES = 0  # training questions
DIFFICULTY_FILTER = []  # levels (numbers of steps) to train and judge on, for example [3, 4]
PASS_RATE_SAMPLES = 0  # above 1: leave out questions that v1 always or never solves in as many
MAX_PROMPT_LENGTH = 0  # tokens; longer questions are counted and left out
MAX_NEW_TOKENS = 0
REWARDS = {}  # term -> weight, over the task's own: {"format_accuracy": 0.3, "brevity": 0.1}

# %% [markdown]
# How to train:

# %% tags=["parameters-training"]
NUM_STEPS = 0
PROMPTS_PER_STEP = 0
NUM_GENERATIONS = 0  # completions a question: the group
NUM_ITERATIONS = 1  # updates on the same completions
BATCH_TOKENS = 0  # tokens a forward pass of the update, padding included
REMAT = False  # gradient checkpointing: recompute each layer's activations in the backward pass
LOSS = "grpo"  # grpo, dr-grpo, gspo-token
BETA = 0.0  # weight of the KL term; 0 needs no reference model in memory
KL = "low_var_kl"  # low_var_kl, kl, mse_kl
TEMPERATURE = 0.0  # of the completions that are drawn
LEARNING_RATE = 0.0
LORA_RANK = 0  # -1 trains all weights, without adapters
LORA_ALPHA = 0.0
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

# %% [markdown]
# ## Set-up
# All parameters are checked here, before anything is loaded.

# %%
session = hosts.begin(hosts.GrpoSettings, globals())
settings, mesh = session.settings, session.mesh
task = tasks.get_task(settings.task)
page = report.Page(title="v2 · GRPO: better answers from rewards", task=task, seed=SEED)

# %% [markdown]
# ## Questions
# Of the levels where v1 is right now and then. Where it always succeeds or always fails there is
# nothing to prefer. A few are kept as a probe, the test split is read by the evaluation alone.

# %%
data = sources.get_dataset(
    settings.data,
    task=settings.task,
    folder=settings.data_folder,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    levels=settings.levels or (1, 2, 3, 4, 5),
    seed=SEED + 1000,  # built-in problems that v1 was not trained on
)
examples = task.examples(task.normalise(data.train)[:1])
display(report.rows_table(data), report.examples_table(examples))

# %%
levels = {"groups": settings.levels, "seed": SEED}
chosen, other_level = tasks.choose_examples(task, data.train, settings.num_samples, **levels)
train_examples, probe_examples = sources.split_validation(chosen, most=settings.probe_samples)
held_out, _ = tasks.choose_examples(task, data.test, settings.eval_samples, **levels)
print(f"{other_level} of {len(data.train)} rows dropped by DIFFICULTY_FILTER")

# %% [markdown]
# ## v1
# The model that v1 exported, with its own tokenizer. It is the policy's start and, frozen, the
# reference. A run that was killed, or whose session was over, is found by the values in the table,
# here or in an attached output, and goes on; v1 counts by its weights, not by its folder.

# %%
start = hosts.find_start("v1_sft_format", settings.model)
v1 = models.get_gemma_ref_model(start, mesh, dtype=settings.dtype)
run = session.start_run("v2_grpo", model_sha256=v1.sha256)
print(v1)

# %% [markdown]
# ## Policy and reference
# The policy begins as v1: adapters over it, or, for a small model, a copy of all its weights. The
# reference is v1 itself; under adapters it costs no memory, because they share its weights.
#
# **The KL term** (`BETA` above 0) holds the policy near the reference. It is needed where a reward
# can be cheated. This one is a checked answer, so the default is 0, as in DAPO (Yu et al. 2025,
# 2503.14476) and Dr. GRPO (Liu et al. 2025, 2503.20783). With `BETA` the estimator is `low_var_kl`
# (Schulman's k3): never negative, and of low variance.
#
# The disk must have space for what the training will write.

# %%
policy = models.get_trainable_model(v1.model, mesh, settings.lora, seed=SEED)
size, trained_size = models.parameter_count(v1.model), models.trainable_count(policy)
print(f"{trained_size:,} weights are trained")
print("disk:", hosts.check_disk_space(run.path, trained=trained_size, exported=size))

# %% [markdown]
# Questions that do not fit are left out, and, with `PASS_RATE_SAMPLES`, those that teach nothing.

# %%
fitting, too_long = tokens.fitting_prompts(
    v1.tokenizer, task, train_examples, settings.max_prompt_length
)
questions, said = evaluation.keep_informative(
    v1,
    task,
    fitting,
    settings.sampled,
    samples=settings.pass_rate_samples,
    kept=run.path.parent / "pass_rates.jsonl",  # measured once, for later runs as well
)
print(f"{too_long} questions over {settings.max_prompt_length} tokens: left out, not cut")
print(said)
print(f"{len(questions)} to train, {len(probe_examples)} in the probe, {len(held_out)} held out")

# %% [markdown]
# ## Rewards
# A weighted view of the one scorer that also evaluates: nothing is parsed twice, so what is trained
# is what is measured. A well-formed wrong answer never earns as much as a right one; weights that
# would allow it are refused. Here are completions written by hand.

# %%
display(Markdown(tasks.reward_table(task, settings.weights)))

# %% [markdown]
# ## A group
# GRPO has no critic. It asks the same question several times and compares the answers *with each
# other*: what a completion earned above its group's mean, in units of the group's spread, is its
# **advantage**. Every token of a completion with a positive advantage is made likelier, of one with
# a negative advantage less likely. In a *zero-variance group* all earn the same, and there is
# nothing to learn: without a KL term such groups are not computed. The others are packed into rows,
# in which a question stands once for its completions.

# %%
reward_fn = tasks.reward_function(task, settings.weights, max_new_tokens=settings.max_new_tokens)
group = evaluation.sample_group(
    v1, task, questions, reward_fn, settings.sampled, size=settings.num_generations
)
display(report.group_table(group))

# %%
page.figure("A group: rewards and advantages", report.plot_group(group, seed=SEED))

# %% [markdown]
# ## v1 on the held-out questions
# Before anything is trained, greedily.

# %%
greedy = settings.greedy
before = evaluation.evaluate_stages(
    v1,
    {"base": (task, greedy)},
    held_out,
    enabled=settings.eval_at_end,
    kept=run.path.parent,  # asked once, for later runs as well
)

# %% [markdown]
# ## Training
# Each step: fresh completions with noise of the step's own, their rewards, one update. Every
# completion ends up in `rollouts.jsonl`. An alarm says what has begun to go wrong, the likely cause
# and the cure. The evaluation and the export at the end get their time first, the training what is
# left of the session; if that is not enough it ends early, and the next session goes on.

# %%
probe = evaluation.make_probe(v1, task, probe_examples, max_new_tokens=settings.max_new_tokens)
hashes = {**v1.hashes, "data": data.sha256["train"]}

# %%
trained = training.train_grpo(
    policy,
    v1.model,
    v1.tokenizer,
    task,
    questions,
    reward_fn,
    settings.grpo,
    run,
    hashes=hashes,
    mesh=mesh,
    probe=probe,
    resume_from=settings.resume_from,
    deadline_s=session.training_s(sum(stage.seconds for stage in before), exported=size),
)

# %% [markdown]
# ## Curves
# Look at the answers first: right ones in the rollouts, which are sampled, and on the probe,
# greedily. They should rise together; a reward that rises alone is being cheated. The share of
# *zero-variance groups* grows as the questions become easy. *Entropy* (of the groups that were
# computed) falls as the policy becomes sure; at zero all of a group are copies and learning ends.

# %%
page.figure("Training", report.plot_grpo(task, trained.history, seed=SEED, title="GRPO"))

# %%
drawn = training.read_rollouts(run)
histogram = report.plot_reward_histogram(drawn, seed=SEED)
page.figure("Rewards at the beginning and at the end", histogram)
page.table(report.rollout_table(drawn, count=6, seed=SEED))

# %% [markdown]
# ## Export
# `export/` is a plain Gemma 3 folder, adapters merged in fp32; where adapters were trained,
# `adapters/` holds those alone, as `peft` takes them; with `EXPORT_FLAX`, `flax/`; with
# `EXPORT_GGUF`, `gguf/`. Each is loaded again, from nothing, and gets its name only if it answers
# as the model in memory does.

# %%
tuned = models.export_run(
    run,
    v1,
    trained.model,
    settings.lora,
    data=data,
    steps=trained.steps,
    steps_left=trained.left,
    prompts=tokens.task_prompts(task, held_out),
    flax=settings.export_flax,
    gguf=settings.export_gguf,
)

# %% [markdown]
# ## v1 against v2
# The same questions, greedily, in the same format.

# %%
after = evaluation.evaluate_stages(
    tuned, {"tuned": (task, greedy)}, held_out, enabled=settings.eval_at_end
)
stages = (*before, *after)
page.table(report.stage_table(task, stages))

# %% [markdown]
# The same items before and after: what counts are the ones that changed. McNemar's exact test asks
# whether as many could have become right rather than wrong by chance alone.

# %%
gains = evaluation.paired_by_group(stages, task)
page.table(report.paired_table(gains.items(), title="Gain by group", heading=task.grouped_by))

# %%
page.figure("v1 (base) and v2 (tuned)", report.plot_stages(task, stages, seed=SEED))
page.figure("By group", report.plot_groups(task, stages, seed=SEED))

# %% [markdown]
# ## Verdict
# The targets of this run, and what to try where one was missed.

# %%
gain = gains.get("all")
page.verdicts(report.grpo_verdicts(task, stages, gain, gain_target=settings.gain_target))

# %% [markdown]
# ## Samples
# The same question before and after.

# %%
page.samples(stages, count=4)

# %% [markdown]
# ## Report
# `report.html` with everything above, a card for each exported folder, and `result.json`.

# %%
about = {"model": v1.name, "data": data.origin, "hashes": hashes}
report.finish(run, stages, page, trained=trained, paired=gain, **about)

# %% [markdown]
# ## Summary
# The policy was never shown a solution in this notebook: it tried, its answers were scored, and
# does more of what was right. Whether that was enough is said by the paired table above, not by the
# rising reward. **Next:** `eval` compares base, v1 and v2 on everything.
