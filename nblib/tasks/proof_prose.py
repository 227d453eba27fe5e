r"""Proofs of the checked language as a person would write them: in text, or with LaTeX.

    Square a-b cyclic: a^2+b^2 >= 2ab
    Sum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca

    For real a, b, c we prove that a^2+b^2+c^2 >= ab+bc+ca.

    Since (a-b)^2 >= 0, we have (and likewise for the cyclic permutations of a, b, c)
    a^2+b^2 >= 2ab. (1)

    Adding half of each inequality in (1), we have a^2+b^2+c^2 >= ab+bc+ca. (2)

    This is what was to be proved.

Nothing is checked here: a wrong proof becomes a wrong text. Lines are read by `proof_text`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nblib.tasks.expressions import Expression, expression_text
from nblib.tasks.proof_text import Line, read_line
from nblib.tasks.statements import NONNEGATIVE, POSITIVE, REAL, Relation, parse_statement


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A text in its parts, so that one may be left out."""

    opening: str
    steps: tuple[str, ...]  # each ends with what it claims
    closing: str

    @property
    def body(self) -> str:
        """The steps."""
        return "\n\n".join(self.steps)

    @property
    def text(self) -> str:
        """The whole."""
        return f"{self.opening}\n\n{self.body}\n\n{self.closing}"


def in_prose(statement: str, proof: str, style: int) -> str:
    """Return a proof as a person would write it, in a style from 0 to `STYLES` - 1.

    Raises ValueError for a statement, a line or a style that cannot be read.
    """
    return prose_of(statement, proof, style).text


def prose_of(statement: str, proof: str, style: int) -> Prose:
    """Return the same as `in_prose`, in its parts."""
    if not 0 <= style < STYLES:
        raise ValueError(f"style is {style}, expected 0 to {STYLES - 1}: {', '.join(_FORMS)}")
    form, known = _FORMS[STYLE_NAMES[style]], parse_statement(statement)
    lines = [read_line(line.strip()) for line in proof.strip().splitlines()]
    words = _Words(
        form=form,
        letters=", ".join(known.variables),
        cyclic={number for number, line in enumerate(lines, start=1) if line.arguments.cyclic},
    )
    given = _listed([words.relation(one) for one in known.hypotheses])
    domain = _listed(words.domains(known.variables)) + (f" with {given}" if given else "")
    claim = words.relation(known.claim)
    return Prose(
        opening=form.opening.format(domain=domain, claim=claim),
        steps=tuple(words.step(number, line) for number, line in enumerate(lines, start=1)),
        closing=form.closing.format(claim=claim, shown=claim.strip("$")),
    )


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How a style writes mathematics, and what stands around it."""

    opening: str
    step: str  # ends with the claim
    closing: str
    is_latex: bool = False

    def math(self, expression: Expression) -> str:
        return _latex(expression) if self.is_latex else expression_text(expression)

    def sign(self, sign: str) -> str:
        return {">=": r"\ge", "!=": r"\ne"}.get(sign, sign) if self.is_latex else sign

    def inline(self, text: str) -> str:
        return f"${text}$" if self.is_latex else text


@dataclass(frozen=True, kw_only=True)
class _Words:
    """Parts of a proof in words."""

    form: _Form
    letters: str
    cyclic: set[int]  # numbers of the cyclic lines

    def step(self, number: int, line: Line) -> str:
        """Return a line as a sentence."""
        reason = _REASONS[line.rule](self, line)
        claim = self.relation(Relation(line.left, ">=", line.right))
        also = f" (and likewise for the cyclic permutations of {self.form.inline(self.letters)})"
        return self.form.step.format(
            number=number,
            reason=reason[0].upper() + reason[1:],
            also=also if line.arguments.cyclic else "",
            claim=claim,
            shown=claim.strip("$"),
        )

    def relation(self, one: Relation) -> str:
        left, right = map(self.form.math, (one.left, one.right))
        return self.form.inline(f"{left} {self.form.sign(one.sign)} {right}")

    def domains(self, variables: Mapping[str, str]) -> list[str]:
        """Return what is known of the variables: `a, b > 0`, `real c`."""
        found = []
        for sign in (POSITIVE, NONNEGATIVE, REAL):
            letters = ", ".join(letter for letter, one in variables.items() if one == sign)
            if letters and sign == REAL:
                found.append(f"real {self.form.inline(letters)}")
            elif letters:
                found.append(self.form.inline(f"{letters} {self.form.sign(sign)} 0"))
        return found

    def arguments(self, line: Line) -> str:
        return _listed(
            [self.form.inline(self.form.math(one)) for one in line.arguments.expressions]
        )

    def steps(self, line: Line) -> str:
        """Return the steps that a line names: `half of (1) and (2)`."""
        weights = line.arguments.weights or [Fraction(1)] * len(line.arguments.steps)
        named = zip(weights, line.arguments.steps, strict=True)
        return _listed([
            f"{_times(weight)}{'each inequality in ' * (step in self.cyclic)}({step})"
            for weight, step in named
        ])  # fmt: skip


def _listed(parts: Sequence[str]) -> str:
    """Join parts as a sentence does: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _times(weight: Fraction) -> str:
    words = {Fraction(1): "", Fraction(1, 2): "half of ", Fraction(2): "twice "}
    return words.get(weight, f"{weight} times ")


def _am_gm(words: _Words, line: Line) -> str:
    named, weights = words.arguments(line), line.arguments.weights
    if set(weights) == {Fraction(1)}:
        return f"by the AM-GM inequality for {named}"
    with_ = f"with the weights {_listed([*map(str, weights)])}"
    return f"by the weighted AM-GM inequality for {named} {with_}"


def _cauchy(words: _Words, line: Line) -> str:
    texts = [*map(words.form.math, line.arguments.expressions)]
    half = len(texts) // 2
    one, other = (
        words.form.inline(f"({', '.join(part)})") for part in (texts[:half], texts[half:])
    )
    return f"by the Cauchy-Schwarz inequality for {one} and {other}"


def _square(words: _Words, line: Line) -> str:
    (root,) = line.arguments.expressions
    square = Relation(("power", root, Fraction(2)), ">=", ("number", Fraction(0)))
    return f"since {words.relation(square)}"


_REASONS: Mapping[str, Callable[[_Words, Line], str]] = {
    "AM-GM": _am_gm,
    "Titu": lambda words, line: (
        f"by the Engel form of the Cauchy-Schwarz inequality for {words.arguments(line)}"
    ),
    "Cauchy": _cauchy,
    "Square": _square,
    "Sum": lambda words, line: f"adding {words.steps(line)}",
    "Times": lambda words, line: (
        f"multiplying {words.steps(line)} by the non-negative factor {words.arguments(line)}"
    ),
    "Product": lambda words, line: f"multiplying {words.steps(line)}, whose sides are not negative",
    "Chain": lambda words, line: f"combining {words.steps(line)}",
    "So": lambda words, line: f"rewriting {words.steps(line)}",
    "Given": lambda words, line: "by what is given",
}


def _latex(expression: Expression) -> str:
    """Return an expression in LaTeX."""
    match expression:
        case ("number", value) if value.denominator > 1:
            return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
        case ("number" | "variable", value):
            return str(value)
        case ("sum", parts):
            terms = [text if text[0] == "-" else f"+{text}" for text in map(_latex, parts)]
            return "".join(terms).removeprefix("+")
        case ("product", (("number", Fraction(numerator=-1, denominator=1)), *rest)):
            nested = len(rest) == 1 and rest[0][0] == "product"
            return f"-{_latex_product(rest[0][1] if nested else rest)}"
        case ("product", parts):
            return _latex_product(parts)
        case ("quotient", top, bottom):
            return rf"\frac{{{_latex(top)}}}{{{_latex(bottom)}}}"
        case ("power", base, exponent) if exponent == Fraction(1, 2):
            return rf"\sqrt{{{_latex(base)}}}"
    _, base, exponent = expression
    return f"{_latex(base) if base[0] == 'variable' else _enclosed(base)}^{{{exponent}}}"


def _latex_product(parts: Sequence[Expression]) -> str:
    texts = [_enclosed(one) if one[0] in ("sum", "product") else _latex(one) for one in parts]
    return "".join(rf" \cdot {one}" if n and one[0].isdecimal() else one
                   for n, one in enumerate(texts))  # fmt: skip


def _enclosed(expression: Expression) -> str:
    return f"({_latex(expression)})"


_FORMS: Mapping[str, _Form] = {
    "plain": _Form(
        opening="For {domain} we prove that {claim}.",
        step="{reason}, we have{also} {claim}. ({number})",
        closing="This is what was to be proved.",
    ),
    "latex": _Form(
        opening="Let {domain}. We show {claim}.",
        step="{reason}, we get{also}\n\\[{shown} \\tag{{{number}}}\\]",
        closing="Hence {claim}, as claimed. $\\blacksquare$",
        is_latex=True,
    ),
    "terse": _Form(
        opening="To show: {claim} ({domain}).",
        step="({number}) {reason}{also}: {claim}",
        closing="Done.",
    ),
    "headings": _Form(
        opening="## Claim\n\nFor {domain}: {claim}.\n\n## Proof",
        step="### Step {number}\n\n{reason}, it follows{also}:\n\n**{claim}** ({number})",
        closing="## Conclusion\n\n$\\boxed{{{shown}}}$ Q.E.D.",
        is_latex=True,
    ),
}
STYLE_NAMES = tuple(_FORMS)
STYLES = len(_FORMS)
