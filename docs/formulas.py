"""Formulas of the pages as MathML. A page has them as plain text, in a block that begins with ```formula:

    y[n,o] = sum over i of x[n,i] * w[o,i] + b[o]     one row, one output

Three spaces or more end a formula, but not before its `=`. What stands beside it and has no `=` stays text, and so does what
begins with a word such as "for" or "over". All else must be a formula, and what can't be read is an error. The rules are those
of the explorer's page, and a test compares them: minidl/study/explorer/page/formulas.js.
"""

import re
from html import escape as escaped

GREEK = {"alpha": "\u03b1", "beta": "\u03b2", "gamma": "\u03b3", "sigma": "\u03c3", "pi": "\u03c0", "infinity": "\u221e"}
SIGNS = {"*": "\u00b7", "-": "\u2212", "@": "\u00b7", "==": "=", "<-": "\u2190", "'": "\u2032", "...": "\u2026"}
WORDS = ("where", "if", "else")
FUNCTIONS = ("max", "min", "exp", "ln", "tanh", "softmax", "floor", "ceil", "sqrt", "erf", "sign", "len")
LARGE = {"sum": "\u2211", "integral": "\u222b", "max": "max", "mean": "mean"}  # what runs over indices
TOKEN = re.compile(
    r"\s*((?:sum|max|mean|integral) over .*? of |(?:sum|mean) of |[A-Za-z_]+\d*"
    r"|\d+(?:\.\d+)?(?:e[-+]?\d+)?|[\u03a3\u03b1\u03b2]|\u2212"
    r"|\.\.\.|<=|>=|==|<-|->|[-+*/^=()\[\],.<>@|'\u00b7\u00b2])",
    re.ASCII,
)
REMARK = re.compile(r"(?:as|for|if|over|those|where|with) ")
FENCE = re.compile(r"^(?P<indent> *)```formula\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


class UnreadableError(ValueError):
    """A formula that the rules do not know. `line`: in its block, from 0."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"a formula must be one of the form that docs/formulas.py reads, got {text!r}")
        self.line = line


def block(text: str) -> str:
    """The HTML of a block: a row for each line, and the text itself, to be unfolded and copied. UnreadableError if a
    formula can't be read, or there is none."""
    rows = [_row(i, line) for i, line in enumerate(text.rstrip("\n").split("\n"))]
    if not any("<math" in row for row in rows):
        raise UnreadableError(0, text)
    plain = f"<details><summary>as text</summary><pre><code>{escaped(text.rstrip())}</code></pre></details>"
    return f'<div class="formula"><div class="formula-rows">{"".join(rows)}</div>{plain}</div>'


def _row(i: int, line: str) -> str:
    if not line.strip():
        return '<div class="formula-gap"></div>'
    indent = len(line) - len(line.lstrip())
    parts = [part for part in re.split(r"\s{3,}(?![\s=])", line.strip()) if part]
    cells = [_part(i, part) for part in parts]
    return f'<div class="formula-row" style="--indent:{indent}">{"".join(cells)}</div>'


def _part(i: int, part: str) -> str:
    if not re.search("<-|=", part) or REMARK.match(part):
        return f"<span>{escaped(part)}</span>"
    found = mathml(part)
    if found is None:
        raise UnreadableError(i, part)
    return found.replace("<math", f'<math alttext="{escaped(part)}"', 1)


def unreadable(page: str) -> tuple[int, str] | None:
    """The line, from 1, and the error of the first formula in a page's Markdown that can't be read."""
    for found in FENCE.finditer(page):
        indent = found["indent"]
        try:
            block("\n".join(line.removeprefix(indent) for line in found["body"].splitlines()))
        except UnreadableError as error:
            return page.count("\n", 0, found.start("body")) + 1 + error.line, str(error)
    return None


# ------------------------------------------------------------------------------------------------------------- the rules


def mathml(text: str) -> str | None:
    """MathML of one formula; None if it is not one. Two words side by side are prose."""
    turned = re.sub(r"sum of (.+?) over (?:the )?(.+)$", r"sum over \2 of \1", text, count=1)
    tokens = _tokens(turned)
    if tokens is None or not {"=", "<-"} & set(tokens):
        return None
    whole = _Reader(tokens).whole()
    return None if whole is None else f'<math display="block">{whole}</math>'


def _tokens(text: str) -> list[str] | None:
    text, found, at = text.rstrip(), [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            return None
        found.append(match[1])
        at = match.end()
    return found


def _mi(name: str) -> str:
    return f"<mi>{GREEK.get(name, name)}</mi>"


def _mo(sign: str) -> str:
    fixed = ' stretchy="false"' if sign in ("(", ")", "[", "]", "|") else ""  # a sum would make them taller than what they hold
    return f"<mo{fixed}>{escaped(SIGNS.get(sign, sign), quote=False)}</mo>"


def _raised(base: str, power: str) -> str:
    """A power; over the indices if the base has some."""
    indexed = re.fullmatch("<msub>(.*)</msub>", base)
    return f"<msubsup>{indexed[1]}{power}</msubsup>" if indexed else f"<msup>{base}{power}</msup>"


class _ProseError(Exception):
    """What is read is no formula."""


class _Reader:
    """Reads tokens from left to right; each method takes what it returns the MathML of."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = [*tokens, ""], 0

    def whole(self) -> str | None:
        try:
            whole = self.row("")
        except _ProseError:
            return None
        return whole if self.at == len(self.tokens) - 1 else None

    def row(self, end: str) -> str:
        parts = []
        while self.tokens[self.at] not in ("", end):
            parts.append(self.item())
        return f"<mrow>{''.join(parts)}</mrow>"

    def group(self, opened: str, closed: str, shown: bool = True) -> str:
        self.at += 1
        inside = self.row(closed)
        if self.tokens[self.at] != closed:
            raise _ProseError
        self.at += 1
        return f"<mrow>{_mo(opened) + inside + _mo(closed) if shown else inside}</mrow>"

    def item(self) -> str:
        base = self.atom()
        if self.tokens[self.at] == "\u00b2":
            self.at += 1
            return _raised(base, "<mn>2</mn>")
        if self.tokens[self.at] != "^":
            return base
        self.at += 1
        if self.tokens[self.at] in ("-", "\u2212"):
            self.at += 1
            return _raised(base, f"<mrow>{_mo('-')}{self.atom()}</mrow>")
        power = self.group("(", ")", shown=False) if self.tokens[self.at] == "(" else self.atom()
        return _raised(base, power)

    def atom(self) -> str:
        token = self.tokens[self.at]
        if token == "":
            raise _ProseError
        if token.endswith(" of "):
            self.at += 1
            kind, _, indices = token.removesuffix(" of ").partition(" over ")
            sign = f"<mo>{LARGE[kind]}</mo>"
            return f"<munder>{sign}<mtext>{escaped(indices, quote=False)}</mtext></munder>" if indices else sign
        if token == "(":
            return self.group("(", ")")
        if token == "[":
            return self.group("[", "]")
        self.at += 1
        if token == "\u03a3":
            return "<mo>\u2211</mo>"
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if not is_name(token):
            return _mo(token)
        if token in WORDS:
            return f"<mtext>\u00a0{token}\u00a0</mtext>"
        following = self.tokens[self.at]
        if is_name(following) and following not in WORDS and token not in FUNCTIONS:
            raise _ProseError
        if token in FUNCTIONS:
            return f"<mo>{token}</mo>"
        if following != "[":
            return _mi(token)
        return f"<msub>{_mi(token)}{self.group('', ']', shown=False)}</msub>"


def is_name(token: str) -> bool:
    return bool(re.match(r"[A-Za-z_\u03b1\u03b2]", token)) and not token.endswith(" of ")
