# %% [markdown]
# # First steps: a problem, its answer, its score
#
# Runs in seconds, without a model. This notebook is kept with its outputs, and the tests run it
# again and compare.

# %%
import datetime

from nblib.sources.wordproblems import word_problems
from nblib.tasks.formats import XML
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.chat import task_prompts

# %% [markdown]
# ## A problem
# A story made from a seed. Its answer has GSM8K's form: steps with annotations, then `#### N`.

# %%
(row,) = word_problems(1, seed=0, split="train", levels=(2,))
print(f"{row.id}, level {row.group}\n\n{row.fields['question']}\n\n{row.fields['answer']}")

# %% [markdown]
# ## An example
# The task makes of a row what is asked, what a model should write, and what that is scored against.

# %%
(example,) = GSM8K.examples([row])
print(f"{example.completion}\n\nreference: {example.reference}")

# %% [markdown]
# ## The prompt
# What a model reads. The system prompt stands at the head of the user's turn, as Gemma has it.

# %%
print(*task_prompts(GSM8K, [example]))

# %% [markdown]
# ## What the completion holds

# %%
XML.parse(example.completion)

# %% [markdown]
# ## Its score
# The strict scorer that every notebook uses: here all is right.

# %%
GSM8K.score(example.completion, example)

# %% [markdown]
# A word before the reasoning breaks the format; the number can still be read, and still counts.

# %%
GSM8K.score(f"Sure!\n{example.completion}", example)

# %% [markdown]
# ## When it was run
# The one cell whose output changes: `sanitize.cfg` hides the date from the comparison.

# %%
print(f"run on {datetime.date.today()}")

# %% [markdown]
# ## Summary
# Problem, example, prompt, completion, score. **Next:** `v1_sft_format` teaches a model to write
# such completions.
