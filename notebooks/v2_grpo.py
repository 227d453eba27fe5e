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
# | **Minutes** | CPU, built-in problems: under 30 |
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

# %%
import time

from IPython.display import Markdown, display

from nblib.evaluation.answers import Probe, evaluate_stages
from nblib.evaluation.comparison import paired_by_group
from nblib.evaluation.groups import sample_group
from nblib.evaluation.pass_rates import keep_informative, pass_rates
from nblib.files import read_jsonl
from nblib.hosts.budget import check_room, session_budget
from nblib.hosts.inputs import bring_attached_run, find_start
from nblib.hosts.place import where_am_i
from nblib.hosts.secrets import provide_tokens
from nblib.hosts.settings import GrpoSettings
from nblib.models.gemma3 import parameter_count
from nblib.models.lora import get_trainable_model, merge_trained, trainable_count
from nblib.models.mesh import device_mesh, mesh_summary
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import PROMPTS, export_adapters, export_model
from nblib.report import (
    Page,
    finish,
    grpo_verdicts,
    paired_table,
    plot_group,
    plot_groups,
    plot_grpo,
    plot_reward_histogram,
    plot_stages,
    rollout_table,
    settings_table,
    stage_table,
)
from nblib.runs import start_run
from nblib.sources.datasets import get_dataset
from nblib.sources.rows import split_validation
from nblib.tasks.registry import get_task
from nblib.tasks.rewards import reward_function, reward_table
from nblib.tasks.task import choose_examples
from nblib.tokens.batches import fitting_prompts
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import tokenizer_seal
from nblib.training.grpo import train_grpo
from nblib.training.rollouts import RolloutLog

started = time.monotonic()

# %% [markdown]
# ## Parameters
# `0`, `""` and `[]` mean "from the profile"; `-1` means all there are.

# %% tags=["parameters"]
PROFILE = "auto"  # auto, cpu, tpu, gpu, smoke
MODEL = ""  # v1's export or run, adapters, "adapters::base", or a name; "" is the newest v1
DTYPE = ""  # bfloat16, float32: of weights that stay as they are; what is trained is float32
TASK = "gsm8k"
DATA = ""  # builtin, gsm8k
GSM8K_DIR = ""  # folder of train.jsonl and test.jsonl; "" asks NBLIB_GSM8K_DIR
NUM_SAMPLES = 0  # training questions
DIFFICULTY_FILTER = []  # levels (numbers of steps) to train and judge on, for example [3, 4]
PASS_RATE_SAMPLES = 0  # above 1: leave out questions that v1 always or never solves in as many
NUM_STEPS = 0
PROMPTS_PER_STEP = 0
MICRO_BATCH = 0  # questions a forward pass of the update; must divide PROMPTS_PER_STEP
REMAT = False  # keep less of each layer: larger micro-batches fit, an update takes a third longer
NUM_GENERATIONS = 0  # completions a question: the group
NUM_ITERATIONS = 1  # updates on the same completions
LOSS = "grpo"  # grpo, dr-grpo, gspo-token
BETA = 0.0  # weight of the KL term; 0 needs no reference model in memory
KL = "low_var_kl"  # low_var_kl, kl, mse_kl
TEMPERATURE = 0.0  # of the completions that are drawn
LEARNING_RATE = 0.0
LORA_RANK = 0  # -1 trains all weights, without adapters
LORA_ALPHA = 0.0
MAX_PROMPT_LENGTH = 0  # tokens; longer questions are counted and left out
MAX_NEW_TOKENS = 0
REWARDS = {}  # term -> weight, over the task's own: {"format_accuracy": 0.3, "brevity": 0.1}
SAVE_INTERVAL = ""  # "10 steps" or "30 min"
RESUME_FROM = ""  # another run's folder `checkpoints`, to go on from with another LEARNING_RATE
SESSION_HOURS = 0.0  # 0: what Kaggle gives (TPU 9, else 12), no limit elsewhere
EXPORT_FLAX = False  # the model once more as Kaggle's Flax checkpoint (Orbax)
EVAL_AT_END = True
EVAL_SAMPLES = 0  # held-out questions, -1 for all
SEED = 0

# %% [markdown]
# ## Set-up
# Where this runs, and how long it may. All parameters are checked here, before anything is loaded.

# %%
place = where_am_i(PROFILE)
settings = GrpoSettings.of(globals())
task = get_task(settings.task)
budget = session_budget(place, settings.session_hours)
mesh = device_mesh()
print(place, mesh_summary(mesh), budget, sep="\n")
print(f"tokens     {provide_tokens() or 'none'}")

# %% [markdown]
# ## v1
# The model that v1 exported, with its own tokenizer. It is the policy's start and, frozen, the
# reference.

# %%
start = find_start("v1_sft_format", settings.model)
v1 = get_gemma_ref_model(start, mesh, dtype=settings.dtype)
print(v1)

# %% [markdown]
# A run that was killed, or whose session was over, is found again by its parameters, here or in an
# attached output, and goes on. v1 counts among them by its weights, wherever it lies.

# %%
parameters = {**settings.parameters, "model_sha256": v1.sha256}
bring_attached_run("v2_grpo", parameters)
run = start_run("v2_grpo", parameters, devices=place.devices, started=started)
page = Page(title="v2 · GRPO: better answers from rewards", task=task, seed=SEED)
display(settings_table(parameters))

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
# What the training will write must have room on the disk.

# %%
policy = get_trainable_model(v1.model, mesh, seed=SEED, **settings.lora)
size, trained_size = parameter_count(v1.model), trainable_count(policy)
print(f"{trained_size:,} weights are trained")
print("disk:", check_room(run.path, trained=trained_size, exported=size))

# %% [markdown]
# ## Questions
# Of the levels where v1 is right now and then. Where it always succeeds or always fails there is
# nothing to prefer. A few are kept as a probe, the test split is read by the evaluation alone.

# %%
data = get_dataset(
    settings.data,
    folder=settings.data_folder,
    num_train=settings.num_samples,
    num_test=settings.eval_samples,
    levels=settings.levels or (1, 2, 3, 4, 5),
    seed=SEED + 1000,  # built-in problems that v1 was not trained on
)
print(data.origin, *data.notes, sep="\n")

# %%
chosen, other_level = choose_examples(
    task, data.train, settings.num_samples, groups=settings.levels, seed=SEED
)
train_examples, probe_examples = split_validation(chosen, most=settings.probe_samples)
held_out, _ = choose_examples(
    task, data.test, settings.eval_samples, groups=settings.levels, seed=SEED
)
print(f"{other_level} of {len(data.train)} rows dropped by DIFFICULTY_FILTER")

# %%
candidates, too_long = fitting_prompts(
    v1.tokenizer, task, train_examples, settings.max_prompt_length
)
print(f"{too_long} questions over {settings.max_prompt_length} tokens: left out, not cut")
questions = candidates
if settings.pass_rate_samples > 1:
    rates = pass_rates(
        v1, task, candidates, settings.sampled,
        samples=settings.pass_rate_samples, mesh=mesh,
        cache=run.path.parent / "pass_rates.jsonl",  # measured once, for later runs as well
    )  # fmt: skip
    questions, always, never = keep_informative(candidates, rates)
    print(f"{rates.summary()}\nleft out: {always} always solved, {never} never solved")
print(f"{len(questions)} to train, {len(probe_examples)} in the probe, {len(held_out)} held out")

# %% [markdown]
# ## Rewards
# A weighted view of the one scorer that also evaluates: nothing is parsed twice, so what is trained
# is what is measured. A well-formed wrong answer never earns as much as a right one; weights that
# would allow it are refused. Here are completions written by hand.

# %%
display(Markdown(reward_table(task, settings.weights)))

# %% [markdown]
# ## A group
# GRPO has no critic. It asks the same question several times and compares the answers *with each
# other*: what a completion earned above its group's mean, in units of the group's spread, is its
# **advantage**. Every token of a completion with a positive advantage is made likelier, of one with
# a negative advantage less likely. In a group where all earn the same there is nothing to learn:
# such groups come last in a step's update, and without a KL term a micro-batch of them is not
# computed.

# %%
reward_fn = reward_function(task, settings.weights, max_new_tokens=settings.max_new_tokens)
group = sample_group(
    v1, task, questions, reward_fn, settings.sampled, size=settings.num_generations, mesh=mesh
)
print(f"{group.example.prompt}\n  wanted {group.example.reference}\n")
print(f"[best: advantage {group.advantages[0]:+.2f}]\n{group.completions[0]}\n")
print(f"[worst: advantage {group.advantages[-1]:+.2f}]\n{group.completions[-1]}")

# %%
figure = plot_group(group.rewards, group.advantages, seed=SEED)
page.figure("A group: rewards and advantages", figure)

# %% [markdown]
# ## v1 on the held-out questions
# Before anything is trained, greedily.

# %%
greedy = settings.greedy
before = evaluate_stages(
    v1, {"base": (task, greedy)}, held_out, mesh=mesh, enabled=settings.eval_at_end
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
# Each step: fresh completions with noise of the step's own, their rewards, one update. Every
# completion ends up in `rollouts.jsonl`. An alarm says what has begun to go wrong, the likely cause
# and the cure.

# %%
hashes = {"model": v1.sha256, **tokenizer_seal(v1.tokenizer), "data": data.sha256["train"]}
rollouts = RolloutLog(folder=run.path)
probe = Probe(v1, task, probe_examples, max_new_tokens=settings.max_new_tokens, mesh=mesh)
tuned_policy = train_grpo(
    policy,
    v1.model,
    v1.tokenizer,
    task,
    questions,
    reward_fn,
    settings.grpo,
    folder=run.checkpoints,
    metrics_path=run.path / "metrics.jsonl",
    rollouts=rollouts,
    identity={**hashes, **parameters},
    mesh=mesh,
    probe=probe,
    resume_from=settings.resume_from,
    deadline_s=deadline_s,
)

# %% [markdown]
# ## Curves
# Look at the answers first: right ones in the rollouts, which are sampled, and on the probe,
# greedily. They should rise together; a reward that rises alone is being cheated. *Zero-variance
# groups* teach nothing: their share grows as the questions become easy. *Entropy* (of the
# micro-batches that were computed) falls as the policy becomes sure; at zero all of a group are
# copies and learning ends.

# %%
history = read_jsonl(run.path / "metrics.jsonl")
drawn = rollouts.read()
page.figure("Training", plot_grpo(task, history, seed=SEED, title="GRPO"))
page.figure("Rewards at the beginning and at the end", plot_reward_histogram(drawn, seed=SEED))
page.table(rollout_table(drawn, count=6, seed=SEED))

# %% [markdown]
# ## Export
# A plain Gemma 3 folder; adapters are merged in fp32. It is loaded again, from nothing, and gets
# its name only if it answers as the model that was trained does.

# %%
tuned = v1.with_model(merge_trained(tuned_policy.model, **settings.lora), name="tuned")
manifest = {
    "notebook": "v2_grpo",
    "command": "python -m nblib run v2_grpo",
    "parameters": parameters,
    "base": v1.described,
    "data": {"origin": data.origin, "sha256": dict(data.sha256)},
    "steps": tuned_policy.trained.steps,
    "steps_left": tuned_policy.trained.left,
}
parity_check = {"prompts": task_prompts(task, held_out[:PROMPTS]), "mesh": mesh}
exporting = {"manifest": manifest, "trained": tuned_policy.model, **parity_check}
proof = export_model(tuned.model, tuned.tokenizer, run.export, **exporting)
print(*proof, sep="\n")

# %% [markdown]
# Beside it, where adapters were trained, those alone, as `peft` takes them; and where `EXPORT_FLAX`
# asks for one, a Flax checkpoint. Each is proven in the same way.

# %%
adapters, flax = run.path / "adapters", run.path / "flax"
if settings.lora_rank > 0:
    about = {"manifest": manifest, **settings.lora, **parity_check}
    print(*export_adapters(tuned_policy.model, v1, adapters, **about), sep="\n")
if settings.export_flax:
    print(*export_model(tuned.model, tuned.tokenizer, flax, flax=True, **exporting), sep="\n")

# %% [markdown]
# ## v1 against v2
# The same questions, greedily, in the same format.

# %%
after = evaluate_stages(
    tuned, {"tuned": (task, greedy)}, held_out, mesh=mesh, enabled=settings.eval_at_end
)
stages = (*before, *after)
page.table(stage_table(task, stages))

# %% [markdown]
# The same items before and after: what counts are the ones that changed. McNemar's exact test asks
# whether as many could have become right rather than wrong by chance alone.

# %%
gains = paired_by_group(stages, task)
page.table(paired_table(gains.items(), title="Gain by group", heading=task.grouped_by))

# %%
page.figure("v1 (base) and v2 (tuned)", plot_stages(task, stages, seed=SEED))
page.figure(f"{task.headline} by group", plot_groups(task, stages, seed=SEED))

# %% [markdown]
# ## Verdict

# %%
paired = gains.get("all")
page.verdicts(grpo_verdicts(task, stages, paired, gain_target=settings.gain_target))

# %% [markdown]
# ## Samples
# The same question before and after.

# %%
page.samples(stages, count=4)

# %% [markdown]
# ## Report
# And a card for each exported folder: data, settings, rates, limits.

# %%
about = {"model": v1.name, "data": data.origin, "hashes": hashes}
finish(run, stages, page, trained=tuned_policy.trained, paired=paired, **about)

# %% [markdown]
# ## Summary
# The policy was never shown a solution in this notebook: it tried, its answers were scored, and
# does more of what was right. Whether that was enough is said by the paired table above, not by the
# rising reward. **Next:** `eval` compares base, v1 and v2 on everything.
