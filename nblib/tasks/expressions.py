"""Algebraic expressions as text, read safely: `a^2+2ab`, `(a+b)/2`, `sqrt(ab)`, `x^(1/3)`.

An own parser with limits on length, depth and exponents: nothing is evaluated, no text makes it do
more than a pass over its characters. Letters side by side are multiplied; each is a variable. What
an expression is worth, and what follows from it, is for `polynomials` and `counterexamples`.

An expression is a tuple with its kind in front, so that a reader is one `match`:

    ("number", Fraction)                 7, 1/2 is a quotient
    ("variable", letter)                 a
    ("sum", (expression, ...))           a+b-c; a minus is ("product", ((number -1), c))
    ("product", (expression, ...))       2ab
    ("quotient", top, bottom)            a/(b+c)
    ("power", base, Fraction)            a^2, a^(1/3), sqrt(a)
"""

import re
from fractions import Fraction
from typing import Any

Expression = tuple[Any, ...]

MAX_CHARACTERS = 2000  # of one expression
MAX_DEPTH = 24  # of parentheses and roots
MAX_DIVISIONS = 60  # of one expression: a/b/c is as deep as it is long
MAX_EXPONENT = 24  # of whole exponents, and of both parts of a fraction
MAX_DIGITS = 12  # of one number
_MAX_SHOWN = 40

_TOKEN = re.compile(r"\s*(?:(\d+)|(sqrt|√)|([A-Za-z])|([-+*/^()·]))", re.ASCII)
_MINUS_ONE: Expression = ("number", Fraction(-1))


class ExpressionError(ValueError):
    """A text that is no expression, or one above the limits; says what and where."""


def parse_expression(text: str) -> Expression:
    """Return the expression that a text writes.

    `1/2ab` is half of ab; `a/bc` and `sqrt ab` are refused: people read them in two ways.

    >>> parse_expression("2a")
    ('product', (('number', Fraction(2, 1)), ('variable', 'a')))

    Raises ExpressionError.
    """
    parser = _Parser(_tokens(text))
    found = parser.sum(0)
    if parser.next:
        raise ExpressionError(f"{parser.next!r} is not expected in {shown(text)}")
    return found


def expression_text(expression: Expression) -> str:
    """Return a text that `parse_expression` reads as an expression of the same value.

    >>> expression_text(parse_expression("(a + b)^2 / 4 - a*b"))
    '(a+b)^2/4-ab'
    """
    match expression:
        case ("number", value):
            return str(value) if value >= 0 else f"({value})"
        case ("variable", letter):
            return str(letter)
        case ("sum", parts):
            terms = [text if text[0] == "-" else f"+{text}" for text in map(expression_text, parts)]
            return "".join(terms).removeprefix("+")
        case ("product", (("number", Fraction(numerator=-1, denominator=1)), *rest)):
            text = expression_text(rest[0] if len(rest) == 1 else ("product", (*rest,)))
            return f"-({text})" if rest[0][0] == "sum" or text[0] == "-" else f"-{text}"
        case ("product", parts):
            return _joined([_within_parentheses(one) for one in parts])
        case ("quotient", top, bottom):
            over = expression_text(top) if top[0] == "product" else _within_parentheses(top)
            return f"{over}/{_within_parentheses(bottom)}"
        case ("power", base, exponent) if exponent == Fraction(1, 2):
            return f"sqrt({expression_text(base)})"
    _, base, exponent = expression
    bare = base[0] == "variable" or (base[0] == "number" and base[1].denominator == 1)
    raised = expression_text(base) if bare else f"({expression_text(base)})"
    whole = exponent.denominator == 1 and exponent >= 0
    return f"{raised}^{exponent}" if whole else f"{raised}^({exponent})"


def _within_parentheses(expression: Expression) -> str:
    """Return the text of a factor."""
    text = expression_text(expression)
    is_factor = expression[0] in ("variable", "power") or text.isdecimal() or text[0] == "("
    whole = expression[0] != "sum" and expression[0] not in ("product", "quotient")
    return text if is_factor and whole else f"({text})"


def _joined(factors: list[str]) -> str:
    """Return a product: a number behind a factor needs its sign."""
    return "".join(f"*{one}" if n and one[0].isdecimal() else one for n, one in enumerate(factors))


def variables_of(expression: Expression) -> set[str]:
    """Return the letters of an expression."""
    match expression:
        case ("variable", letter):
            return {letter}
        case ("sum" | "product", parts):
            return set().union(*map(variables_of, parts))
        case ("quotient", top, bottom):
            return variables_of(top) | variables_of(bottom)
        case ("power", base, _):
            return variables_of(base)
    return set()


def nodes(expression: Expression) -> int:
    """Return how many operations an expression has, and letters and numbers."""
    parts = expression[1] if expression[0] in ("sum", "product") else expression[1:]
    return 1 + sum(nodes(part) for part in parts if isinstance(part, tuple))


def shown(text: str) -> str:
    """Return a text for a message, cut."""
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"{len(text)} characters: expected at most {MAX_CHARACTERS}")
    if text.count("/") > MAX_DIVISIONS:
        raise ExpressionError(f"{text.count('/')} divisions: expected at most {MAX_DIVISIONS}")
    found, place = [], 0
    end = len(text.rstrip())
    while place < end:
        token = _TOKEN.match(text, place)
        if token is None:
            at = text[place:].lstrip()
            raise ExpressionError(f"{at[:8]!r} is no part of an expression")
        if token[1] and len(token[1]) > MAX_DIGITS:
            raise ExpressionError(f"a number of {len(token[1])} digits: at most {MAX_DIGITS}")
        found.append("sqrt" if token[2] else token[0].strip().replace("·", "*"))
        place = token.end()
    return found


class _Parser:
    """Recursive descent over tokens; "" stands behind the last one."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._place = [*tokens, ""], 0

    @property
    def next(self) -> str:
        return self._tokens[self._place]

    def _take(self) -> str:
        self._place += 1
        return self._tokens[self._place - 1]

    def sum(self, depth: int) -> Expression:
        """Read terms, with signs between them and perhaps before the first."""
        terms = [self._signed(depth)] if self.next in ("+", "-") else [self._term(depth)]
        while self.next in ("+", "-"):
            terms.append(self._signed(depth))
        return terms[0] if len(terms) == 1 else ("sum", tuple(terms))

    def _signed(self, depth: int) -> Expression:
        if self._take() == "+":
            return self._term(depth)
        return ("product", (_MINUS_ONE, self._term(depth)))

    def _term(self, depth: int) -> Expression:
        """Read factors from left to right: `a*b/c` is (ab)/c."""
        factors, clear = [self._factor(depth)], True
        while self.next and self.next not in "+-)":
            if self.next == "/":
                self._take()
                bottom = self._factor(depth)
                top = factors[0] if len(factors) == 1 else ("product", tuple(factors))
                factors = [("quotient", top, bottom)]
                clear = top[0] == bottom[0] == "number"  # 1/2ab is half of ab
            elif self.next == "*":
                self._take()
                factors.append(self._factor(depth))
                clear = True
            elif self.next.isdecimal():
                raise ExpressionError(f"{self.next} behind a factor: write the number first, or *")
            elif clear:
                factors.append(self._factor(depth))
            else:
                raise ExpressionError("what is divided by: write a/(bc) or (a/b)c, not a/bc")
        return factors[0] if len(factors) == 1 else ("product", tuple(factors))

    def _factor(self, depth: int) -> Expression:
        base = self._base(depth)
        if self.next != "^":
            return base
        self._take()
        exponent = self._exponent()
        if self.next == "^":
            raise ExpressionError("a power of a power: write it with parentheses")
        return ("power", base, exponent)

    def _base(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"more than {MAX_DEPTH} parentheses within each other")
        token = self._take()
        if token.isdecimal():
            return ("number", Fraction(int(token)))
        if token == "sqrt":
            bare = self.next != "("
            root = ("power", self._base(depth + 1), Fraction(1, 2))
            if bare and (self.next.isalnum() or self.next in ("(", "^")):
                raise ExpressionError("what is under the root: write sqrt(ab) or sqrt(a)b")
            return root
        if token == "(":
            found = self.sum(depth + 1)
            if self._take() != ")":
                raise ExpressionError("a parenthesis is not closed")
            return found
        if token.isalpha():
            return ("variable", token)
        raise ExpressionError(f"{token!r} where a number or a letter is expected" if token else
                              "something is missing at the end")  # fmt: skip

    def _exponent(self) -> Fraction:
        """Read a whole number, or one in parentheses with a sign and a denominator."""
        token = self._take()
        if token.isdecimal():
            return _within(int(token), 1)
        negative = False
        if token == "(":
            negative = self.next == "-" and bool(self._take())
            top, bottom = self._take(), "1"
            if self.next == "/":
                self._take()
                bottom = self._take()
            if top.isdecimal() and bottom.isdecimal() and int(bottom) and self._take() == ")":
                return _within(-int(top) if negative else int(top), int(bottom))
        raise ExpressionError("an exponent must be a number: a^2, a^(1/3), a^(-1)")


def _within(top: int, bottom: int) -> Fraction:
    if max(abs(top), bottom) > MAX_EXPONENT:
        raise ExpressionError(f"an exponent above {MAX_EXPONENT}")
    return Fraction(top, bottom)
