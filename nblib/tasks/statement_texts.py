r"""Statements as people write them: "Prove that", LaTeX, "for all positive reals".

    Show that $\frac{a}{b}+\frac{b}{a} \ge 2$ for all real a, b > 0      a/b+b/a >= 2 for a, b > 0

A copy in such a form says the same; so it is checked and compared as a statement. What cannot be
read stays a text.
"""

import re
from dataclasses import replace

from nblib.tasks.expressions import ExpressionError
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.statements import REAL, Statement, parse_statement

_ASKED = re.compile(r"^\s*(?:(?:prove|show|statement)(?:\s+that)?\b)?\s*:?\s*(?=\S)", re.IGNORECASE)
_PLAIN = (
    (r"\$|\\[()\[\],;! ]|\\(?:left|right|displaystyle|quad)\b|[{}](?=\s*$)", " "),
    (r"\\(?:geq?s?|geqslant)\b", ">="),
    (r"\\(?:leq?s?|leqslant)\b", "<="),
    (r"\\(?:cdot|times)\b|×|⋅", "*"),
    (r"\^\s*\{([^{}]*)\}", r"^(\1)"),
    (r"\^\((\d+)\)", r"^\1"),
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_FOR = re.compile(r"\bfor\s+(?:all|any|every|each)\b", re.IGNORECASE)
_POSITIVE = re.compile(
    r"\bfor\s+(?:positive\s+(?:real\s+)?(?:numbers?\b|reals?\b)?)\s*((?:[a-z]\s*,\s*)*[a-z])\b"
    r"(?!\s*[>=≥])", re.IGNORECASE,
)  # fmt: skip
_REALS = re.compile(r"\bfor\s+(?:reals|real\s+(?:numbers?|variables?))\b", re.IGNORECASE)
_SIGNED = re.compile(r"\bfor\s+real\s+(?=(?:[a-z]\s*,\s*)*[a-z]\s*(?:>=|>|≥)\s*0)", re.IGNORECASE)


def read_statement(text: str) -> Statement | None:
    """Return the statement that a text writes, by hand, in LaTeX or in Lean; None for another."""
    ways = ((parse_statement, text), (parse_statement, _in_own_syntax(text)))
    for read, written in (*ways, (parse_lean_statement, text)):
        try:
            return read(written)
        except ExpressionError:
            continue
    return None


def claim_of(statement: Statement) -> Statement:
    """Return a statement over all real numbers, with its equality hypotheses alone.

    The same claim over another domain, or under a hypothesis that it does not need, teaches the
    same: such copies have one `claim_of`. It need not be true.
    """
    return replace(
        statement,
        variables=dict.fromkeys(statement.variables, REAL),
        hypotheses=tuple(one for one in statement.hypotheses if one.sign == "="),
    )


def _in_own_syntax(text: str) -> str:
    text = _ASKED.sub("", text, count=1).strip().rstrip(".")
    for pattern, plain in _PLAIN:
        text = re.sub(pattern, plain, text)
    for _ in range(4):  # fractions and roots within each other
        text = _FRACTION.sub(r"((\1)/(\2))", _ROOT.sub(r"sqrt(\1)", text))
    text = _REALS.sub("for real", _FOR.sub("for", text))
    text = _POSITIVE.sub(r"for \1 > 0", text)
    return " ".join(_SIGNED.sub("for ", text).split())
