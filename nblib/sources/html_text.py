"""The visible text of an HTML page: what a reader sees, a line a block.

140 real product pages have a median of 439,000 characters raw and 12,000 visible; brand, price and
article number are among the visible ones. How much of what is wanted survives is for the data to
show (`tasks.extraction_rows`).

Left out are scripts, styles, comments, templates, the head with its title, and what stands in an
attribute alone: `alt`, `title`, `aria-label`, the value of a field. Kept is what a style would
hide, such as a tab that is not open: what is wanted often stands there. The time is linear in the
length of a page, but for blocks that are opened by the ten thousand and never closed.
"""

import re

# What a page or a part of one begins with. Other words in angle brackets, such as `<name>` in an
# instruction or `List<String>` in code, are text.
_FIRST = (
    "a|article|aside|b|blockquote|body|br|button|center|dd|div|dl|dt|em|fieldset|figure|font|footer|"
    "form|h[1-6]|head|header|hr|html|i|iframe|img|input|li|main|nav|noscript|ol|p|picture|pre|script|"
    "section|select|small|span|strong|style|sub|sup|svg|table|tbody|td|template|th|thead|tr|ul|video"
)
_TAG = re.compile(rf"<(?:!doctype\s|!--|\?xml\s|/?(?:{_FIRST})(?:\s[^<>]*|/)?>)", re.IGNORECASE)
_UNSEEN = ["script", "style", "noscript", "template", "svg", "iframe", "head"]
_UNSEEN_CHARACTERS = dict.fromkeys((0xAD, 0x200B, 0x2060, 0xFEFF))  # places where a line may break
_BLOCKS = (
    "address,article,aside,blockquote,br,dd,div,dl,dt,fieldset,figcaption,figure,footer,form,h1,h2,"
    "h3,h4,h5,h6,header,hr,li,main,nav,ol,option,p,pre,section,summary,table,tr,ul"
)
_APART = "button,img,input,select,td,textarea,th"
_RAISED = "sub,sup"
# Private characters, which no page has: they mark what white space of the source does not.
_LINE, _GAP, _LINK, _STEP = "\ue000\ue001\ue002\ue003"
_MARKS = dict.fromkeys(map(ord, (_LINE, _GAP, _LINK, _STEP)), " ")
_BETWEEN_DIGITS = re.compile(rf"(?<=\d){_STEP}(?=\d)")


def visible_text(prompt: str) -> str:
    r"""Return a text whose HTML, from its first tag on, is replaced by what is seen of it.

    What stands before the first tag, such as an instruction, is kept as it is; a text without a
    tag comes back unchanged. Cents that are only raised get a space: 1250 would be another price.

    >>> visible_text("Read this.\n\n<h1>Mug</h1><p><b>12</b><sup>50</sup> &euro;</p>")
    'Read this.\n\nMug\n12 50 €'
    """
    head = before_tags(prompt)
    if head == prompt:
        return prompt
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(prompt[len(head) :].translate(_MARKS))
    tree.strip_tags(_UNSEEN)
    for selected, mark in ((_BLOCKS, _LINE), (_APART, _GAP), ("a", _LINK), (_RAISED, _STEP)):
        for node in tree.css(selected):
            node.insert_before(mark)
            node.insert_after(mark)
    text = tree.body.text() if tree.body else ""
    text = text.replace(2 * _LINK, " ").replace(_LINK, "").replace(_GAP, " ")
    text = _BETWEEN_DIGITS.sub(" ", text).replace(_STEP, "").translate(_UNSEEN_CHARACTERS)
    lines = (" ".join(line.split()) for line in text.split(_LINE))
    return head + "\n".join(filter(None, lines))


def before_tags(prompt: str) -> str:
    """Return what stands before the first tag of a text, all of it where there is none."""
    first = _TAG.search(prompt)
    return prompt[: first.start()] if first else prompt
