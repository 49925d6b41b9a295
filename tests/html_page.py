"""A page as a browser would read it, for tests of what pages say and what they fetch."""

import re
from html.parser import HTMLParser


class HtmlPage(HTMLParser):
    """Checks that tags close in order, and collects ids, references and visible text."""

    VOID = frozenset({"meta", "link", "br", "img", "hr"})

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.references, self.tags, self.text = [], [], [], set(), ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href", "action", "data"):
                self.references.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def words(page):
    return re.sub(r"\s+", " ", page.text)
