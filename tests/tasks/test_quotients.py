"""Exact arithmetic against an evaluation at points; signs by sight; eliminations; limits."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.tasks.expressions import parse_expression
from nblib.tasks.polynomials import Refused
from nblib.tasks.quotients import ONE, Arithmetic, Domain, Quotient, square_root
from tests.tasks.right_proofs import value

DOMAIN = Domain.of({"a": ">", "b": ">", "c": ">"})
MIXED = Domain.of({"a": ">", "b": ">=", "x": "real"})
LEAF = st.sampled_from(["a", "b", "c", "1", "2", "3/2", "a^2", "b^3", "(a-b)", "c^(-1)", "-a"])
JOINED = "({})+({})", "({})-({})", "({})*({})", "({})/({})"
TEXT = st.recursive(
    LEAF,
    lambda one: (
        st.builds(lambda form, p, q: form.format(p, q), st.sampled_from(JOINED), one, one)
        | st.builds("({})^{}".format, one, st.integers(0, 3))
        | st.builds("({})^(-{})".format, one, st.integers(1, 2))
    ),
    max_leaves=6,
)
POINTS = [
    {letter: Fraction(random.Random(f"{letter}{n}").randint(1, 40), n + 1) for letter in "abc"}
    for n in range(6)
]


def at(quotient, point):
    """Return what a quotient is at a point, unpacked by hand."""

    def polynomial(top):
        return sum(
            c
            * point["a"] ** (m & 255)
            * point["b"] ** (m >> 8 & 255)
            * point["c"] ** (m >> 16 & 255)
            for m, c in top.items()
        )

    found = Fraction(polynomial(quotient.top), quotient.number)
    for factor, exponent in quotient.factors.items():
        found /= polynomial(dict(factor)) ** exponent
    return found


def valued(text, domain=DOMAIN):
    return Arithmetic(domain).value(parse_expression(text))


@settings(deadline=None, max_examples=300)
@given(TEXT)
def test_a_value_is_that_of_the_text_at_all_points(text):
    try:
        found = valued(text)
    except Refused as error:
        assert error.code in ("denominator", "too large")
        return
    expression = parse_expression(text)
    assert [at(found, p) for p in POINTS] == [value(expression, p) for p in POINTS]


@settings(deadline=None, max_examples=200)
@given(TEXT, TEXT)
def test_equal_quotients_are_equal_at_all_points_and_no_others_are(one, other):
    try:
        arithmetic = Arithmetic(DOMAIN)
        left, right = (arithmetic.value(parse_expression(text)) for text in (one, other))
        equal = arithmetic.equal(left, right)
        assert arithmetic.equal(left, left) and arithmetic.equal(right, right)
    except Refused:
        return
    assert equal == all(at(left, p) == at(right, p) for p in POINTS)


@pytest.mark.parametrize(
    ("text", "nonnegative", "positive"),
    [
        ("a", True, True),
        ("b", True, False),
        ("x", False, False),
        ("x^2", True, False),
        ("x^2+1", True, True),
        ("a+b+x^4", True, True),
        ("b+x^2", True, False),
        ("ax", False, False),
        ("ab+b^3x^2", True, False),
        ("a-b", False, False),
        ("-a", False, False),
        ("0", True, False),
        ("a-a", True, False),
        ("(a-b)^2", False, False),  # it is, but that is not seen
        ("b/a", True, False),
        ("1/(a+b)", True, True),
        ("1/(-a-b)", False, False),
        ("x/(x^2+1)", False, False),
        ("(-1)/(-a)", True, True),
    ],
)
def test_signs_are_seen_from_coefficients_alone(text, nonnegative, positive):
    arithmetic, found = Arithmetic(MIXED), valued(text, MIXED)
    assert arithmetic.is_nonnegative(found) is nonnegative
    assert arithmetic.is_positive(found) is positive


@pytest.mark.parametrize("bottom", ["b", "x", "x^2", "b+x^2", "a-1", "a-a", "0", "ab", "a+x", "-b"])
def test_a_denominator_that_may_be_0_or_negative_is_refused(bottom):
    for text in (f"1/({bottom})", f"({bottom})^(-1)", f"a/(1/({bottom}))", f"0/({bottom})"):
        with pytest.raises(Refused) as error:
            valued(text, MIXED)
        assert error.value.code == "denominator"


@pytest.mark.parametrize(
    ("text", "root"),
    [
        *[("4a^2", "2a"), ("a^2b^4/9", "ab^2/3"), ("1", "1"), ("a*a", "a"), ("x^2", "x")],
        *[(text, None) for text in ("2a^2", "a^3", "a^2b", "-a^2", "a^2+2ab+b^2", "a^2/b", "1/2")],
    ],
)
def test_a_square_is_a_monomial_of_even_exponents(text, root):
    domain = Domain.of({"a": ">", "b": ">", "x": "real"})
    assert square_root(valued(text, domain)) == (root and valued(root, domain))


@pytest.mark.parametrize(
    ("hypotheses", "zero", "other"),
    [
        (["a+b+c-3"], "(a+b+c)^2-9", "(a+b+c)^2-3"),
        (["3-a-b-c"], "c-3+a+b", "c-3+a-b"),
        (["abc-1"], "a^2b^2c^2-1", "a^2bc-1"),
        (["ab+bc+ca-1"], "(a+b)(a+c)-1-a^2", "(a+b)(a+c)-a^2"),
        (["a^2+b^2+c^2-3"], "a^4-(3-b^2-c^2)^2", "a^3-1"),
        (["a^2+b^2+c^2-3"], "a^3-3a+ab^2+ac^2", "a-1"),
        (["a-2b", "c-3b"], "ac-6b^2", "ac-5b^2"),
        (["a-2b", "a-2b"], "a-2b", "a-b"),
        ([], "(a+b)^2-a^2-2ab-b^2", "a"),
    ],
)
def test_what_vanishes_where_the_hypotheses_hold(hypotheses, zero, other):
    found = []
    for text in hypotheses:
        one = Arithmetic(DOMAIN, found).elimination(valued(text).top)
        found += [one] if one else []
    assert Arithmetic(DOMAIN, found).vanishes(valued(zero).top)
    assert not Arithmetic(DOMAIN, found).vanishes(valued(other).top)


@pytest.mark.parametrize("hypothesis", ["(a-b)c", "ab+b^2+a^2", "(a-b)c-b", "0"])
def test_what_may_be_0_divides_no_hypothesis(hypothesis):
    one = Arithmetic(DOMAIN).elimination(valued(hypothesis).top)
    assert one is None or Arithmetic(DOMAIN).is_positive(valued("1")._replace(top=one.lead))
    real = Domain.of({"a": "real", "b": "real", "c": "real"})
    product = Arithmetic(real).elimination(valued("abc-ab", real).top)
    assert product is None  # where a = 0, c need not be 1
    assert Arithmetic(real).elimination(valued("abc+1", real).top)  # no 0 solves it


def test_a_quotient_that_is_0_keeps_no_denominator():
    zero = "0/((1+a)^19(1+b)^19)"
    for text in (zero, f"({zero})^4", f"{zero}+0", f"{zero}*{zero}", f"(a-a)*{zero}/(1+c)^9"):
        assert valued(text) == Quotient({}), text


def test_long_denominators_are_counted_where_they_are_multiplied_and_added():
    arithmetic, long = Arithmetic(DOMAIN), valued("1/((1+a)^19(1+b)^19)")
    for work in (lambda: arithmetic.times(long, ONE), lambda: arithmetic.total([long, ONE])):
        with pytest.raises(Refused) as error:
            for _ in range(1000):
                work()
        assert error.value.code == "too large"


@pytest.mark.parametrize(
    "text",
    [
        *["(a+b+c+1)^12", "a^24a^24a^24a^24a^24", "(((9^24)^24)^24)^24", "abc" * 100, "(a^24)^5"],
        *["0*((((1/a)^24)^24)^24)^24", "(((a+b)^(-24))^24)^24", "999999999999*" * 20 + "1"],
        *["+".join(f"1/(a+{n}b)" for n in range(2, 60)), "((a+b)(b+c)(c+a))^9*((a+1)(b+1))^9"],
    ],
)
def test_what_is_too_large_is_refused(text):
    with pytest.raises(Refused) as error:
        valued(text)
    assert error.value.code == "too large"


def test_a_rotation_moves_each_variable_to_the_next():
    arithmetic, text = Arithmetic(DOMAIN), parse_expression("a^2b/(b+c)")
    turned = [arithmetic.value(text, n) for n in range(3)]
    assert turned == [valued(one) for one in ("a^2b/(b+c)", "b^2c/(c+a)", "c^2a/(a+b)")]
