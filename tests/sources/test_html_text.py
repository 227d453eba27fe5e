"""What is seen of a page: no scripts, a line a block, and nothing of a text that is no page."""

from decimal import Decimal

import pytest

from nblib.sources.html_text import before_tags, visible_text
from nblib.tasks.comparators import number_readings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mug Rosa\n\n  12,50 EUR ",
        "a < b and c > d",
        "I <3 you, 1 <2> 3",
        "if a <b and c",
        "List<String> names = new ArrayList<>();\nreturn names;",
        "#include <vector>\n#include <map>\nstd::map<int, char> seen;",
        "Put it between <answer> and </answer>.\nThe <name> is the first.",
        "from me <me@shop.example>\nsee <https://shop.example/?a=b>",
        "<<<>>> </> <> < p> <1p>",
        "&amp; &euro; a\x00b \ud800 \ufffd",
        "<p",
        "<div class=",
    ],
)
def test_a_text_that_is_no_page_stays_as_it_is(text):
    assert visible_text(text) == text


@pytest.mark.parametrize(
    "tag",
    ["<p>", "</p>", "<P>", "<p class='a'>", "<br/>", "<br />", "<h1\nid=a>", "<!-- a -->"],
)
def test_a_page_may_begin_with_any_tag(tag):
    assert visible_text(f"Read  it.\n\n{tag}Mug\n  Rosa") == "Read  it.\n\nMug Rosa"


@pytest.mark.parametrize(
    "start", ["<!DOCTYPE html>\n", '<?xml version="1.0"?>\n', "<html lang=de>"]
)
def test_a_page_begins_before_its_body(start):
    assert visible_text(f"{start}<head><title>T</title></head><body><p>Mug</p>") == "Mug"


def test_the_instruction_before_the_page_is_kept_as_it_is():
    asked = "  Read <name> and <price>:\n\n\t- null is what is not said, 1 < 2\n\n"
    assert visible_text(f"{asked}<div>Mug</div>") == f"{asked}Mug"


def test_what_comes_after_the_page_is_kept_as_text():
    assert visible_text("<html><body><p>Mug</p></body></html>\n\nRead it.\nNow.") == (
        "Mug\nRead it. Now."
    )


@pytest.mark.parametrize(
    "unseen",
    [
        "<script>if (a < b) { document.write('<p>no</p>') }</script>",
        '<script type=application/ld+json>{"price": 3}</script>',
        "<style>p { margin: 0 }</style>",
        "<!-- <p>no</p> -->",
        "<noscript>no</noscript>",
        "<template><p>no</p><template>no</template></template>",
        "<svg><title>no</title><text>no</text></svg>",
        "<iframe src=a>no</iframe>",
    ],
)
def test_what_no_reader_sees_is_left_out(unseen):
    assert visible_text(f"<p>Mug{unseen} Rosa</p>") == "Mug Rosa"


def test_texts_in_attributes_are_left_out_and_hidden_ones_kept():
    page = (
        '<img alt="a mug"><button aria-label="buy it">Buy</button><input value="3">'
        '<a title="to the shop" href="/">Shop</a><div hidden>Steel</div>'
        '<div style="display: none">Red</div>'
    )
    assert visible_text(page) == "Buy Shop\nSteel\nRed"


@pytest.mark.parametrize(
    ("price", "seen", "value"),
    [
        ("<span>12</span><sup>99</sup> &euro;", "12 99 €", None),
        ("12<sup><small>99</small></sup>", "12 99", None),
        ("<a href=x>12</a><sup>99</sup>", "12 99", None),
        ("<span>12</span><sup>,99</sup>", "12,99", "12.99"),
        ("<b>1.</b><i>299</i>,<small>00</small>", "1.299,00", "1299"),
        ("<span>1</span><span>,</span><span>299</span>", "1,299", "1299"),
        ("&pound;1&nbsp;299<span>.</span>50", "£1 299.50", "1299.5"),
        ("10 m<sup>2</sup>", "10 m2", None),
        ("H<sub>2</sub>O", "H2O", None),
    ],
)
def test_tags_within_a_price(price, seen, value):
    assert visible_text(f"<p>{price}</p>") == seen
    if value:
        assert Decimal(value) in number_readings(seen)


def test_a_block_is_a_line_and_a_cell_is_apart():
    page = """<table><tr><th>Brand<th>Price</tr>
        <tr><td>Ita<td><table><tr><td>12</td><td>EUR</td></tr></table></td></tr></table>
        <dl><dt>Colour</dt><dd>red</dd></dl><ul><li>S<li>M</ul>a<br>b<br/><br>c<hr>
        <select><option>one<option>two</select>"""
    assert visible_text(page).splitlines() == [
        *("Brand Price", "Ita", "12 EUR", "Colour", "red", "S", "M", "a", "b", "c", "one", "two")
    ]


def test_words_that_only_a_style_parts_are_apart_and_marked_letters_are_not():
    assert visible_text("<a>Home</a><a>Shop</a> <a>Cart</a>") == "Home Shop Cart"
    assert visible_text("<p>see <a>this</a>, <b>R</b>osa</p>") == "see this, Rosa"
    assert visible_text("<button>Add</button><button>Buy</button>") == "Add Buy"
    assert visible_text("<p>Mug<img src=a>12</p>") == "Mug 12"


def test_entities_and_breaks_within_words():
    assert (
        visible_text("<p>&lt;b&gt; &amp;amp; caf&eacute; &#8364;&#x20ac;</p>")
        == "<b> &amp; café €€"
    )
    assert visible_text("<p>super&shy;long<wbr>\u200bword\ufeff</p>") == "superlongword"


@pytest.mark.parametrize(
    "page",
    [
        "<div><p>Mug<p>Rosa",
        "<div><p>Mug</b></i></div></div></p>Rosa",
        "<p>Mug</p></body></html><p>Rosa</p>",
        "<P>Mug</P><DIV>Rosa<span class='cut",
        "<table><p>Mug</p><tr><td>Rosa",
        "<p>M\x00ug</p><p>Ro\x00sa</p>",
        "<p>M\ud800ug</p><p>Rosa</p>",
        "<p>Mug</p><!-- cut <p>no</p>",
        "<p>Mug</p><p>Rosa</p><script>cut",
        "<shop-page><p>Mug</p><my-price>Rosa</my-price></shop-page>",
    ],
)
def test_broken_pages(page):
    seen = visible_text(page).replace("<shop-page>", "")
    assert seen.splitlines()[0] == "Mug" and seen in ("Mug\nRosa", "Mug")
    assert "no" not in seen


def test_signs_that_the_cleaner_uses_are_no_lines():
    assert visible_text("<p>a\ue000b\ue001c\ue002\ue002d 1\ue0032</p>") == "a b c d 1 2"
    assert visible_text("a\ue000b") == "a\ue000b"


def test_a_page_without_a_text_leaves_the_instruction():
    assert (
        visible_text("Read it.\n\n<html><body><script>1</script></body></html>") == "Read it.\n\n"
    )
    assert visible_text("<frame><p></p>") == "<frame>"


PIECES = {
    "blocks": "<div class='a b'><p>Mug <b>Rosa</b> 12<sup>50</sup></p></div>\n",
    "left open": "<p><b><i>Mug",
    "rows": "<table><tr><td>a<td>b",
    "links": "<a href=x>Mug",
    "no tags": "a <b c < d <",
    "attributes": "<p data-a='1' data-b='2' data-c>",
    "white space": "<p>          \n          </p>",
}


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_a_page_of_a_million_characters_is_cleaned(piece):
    page = piece * (1_000_000 // len(piece))
    assert len(visible_text(f"Read it.\n{page}")) <= 9 + len(page)


def test_what_stands_before_the_first_tag():
    assert before_tags("Read <name>.\n\n<h1>Mug</h1>") == "Read <name>.\n\n"
    assert before_tags("<p>Mug") == "" and before_tags("Mug < 3") == "Mug < 3"
