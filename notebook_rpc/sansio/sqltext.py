"""Where SQL text has its strings, comments and statements, and which of these begin or end a
transaction.

It reads only as far as it must: what a statement means, and whether it is right, the database
says. What is broken (a string without end) is passed on as it is, for the database to refuse.
Every function takes linear time, whatever it is given.

It refuses to guess where a body of several statements ends that does not begin with BEGIN, and
knows no commands of clients, such as DELIMITER or GO.

Sources: PostgreSQL's psqlscan.l for bodies; the chapters on lexical structure in the manuals of
PostgreSQL, MySQL, SQLite and Transact-SQL.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from notebook_rpc.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names may hold any character beyond ASCII, blanks and symbols included.
_LETTER: Final = r"[a-zA-Z_\x80-\U0010ffff]"
_LETTERS: Final = r"[\w\x80-\U0010ffff]*+"
# For ``wholes``: BEGIN, if it begins no transaction.
BLOCK: Final = r"BEGIN(?= (?!TRAN|WORK|ISOLATION|READ|DISTRIBUTED)\w)"


@dataclass(frozen=True)
class Dialect:
    """How a database writes what is not the same everywhere.

    ``bodies`` and ``wholes`` are patterns of a statement's first words, in capitals with one
    blank between. Semicolons do not end the former between BEGIN (or CASE) and END nor in
    parentheses, and never end the latter, which go on to the end of the text.
    """

    backslashes: bool = False  # 'it\'s' is a string, and so is "it's"
    escape_strings: bool = False  # E'it\'s' is a string
    dollar_quotes: bool = False  # $tag$ begins a string that ends with the same
    backticks: bool = False
    brackets: bool = False  # [a name], with ]] for a bracket in it
    hash_comments: bool = False  # and "--" begins a comment in front of a blank only
    code_comments: bool = False  # /*! is no comment, but something to run
    nested_comments: bool = False
    bodies: str = "CREATE (OR REPLACE )?(FUNCTION|PROCEDURE|TRIGGER)"
    wholes: str = "(?!)"  # none

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A match is a token, or the opening of one: of a comment or of a dollar quote.

        No alternative may look far ahead and then fail: that would take quadratic time.
        """
        quoted = [r"'[^']*(?:'|\Z)", r'"[^"]*(?:"|\Z)']
        if self.backslashes:
            quoted = [r"'(?:[^'\\]++|\\.?)*+(?:'|\Z)", r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)']
        if self.escape_strings:  # a piece of it on another line has its escapes, too
            quoted += [r"[eE]'(?:[^'\\]++|\\.?|''|'[^\S\n]*+\n\s*+')*+(?:'|\Z)"]
        if self.backticks:
            quoted += [r"`[^`]*(?:`|\Z)"]
        if self.brackets:
            quoted += [r"\[(?:[^\]]++|\]\])*+(?:\]|\Z)"]
        groups = {
            "blank": r"[ \t\n\r\f\v]++",
            "comment": r"#[^\n]*|--(?=[\x00-\x20])[^\n]*" if self.hash_comments else r"--[^\n]*",
            "opening": r"/\*",
            "quoted": "|".join(quoted),
            "dollar": rf"\$(?:{_LETTER}{_LETTERS})?\$" if self.dollar_quotes else r"(?!)",
            "word": rf"{_LETTER}(?:{_LETTERS}\$?)*+",
            "number": r"\d\w*+",
            "semicolon": r";",
            "double": r"::|:=|\?\?",
            # A colon right behind a name or a number is a slice, a path or a label.
            "placeholder": rf"[?$]\d+|\?|(?<![\w\])\"'`:]):{_LETTER}{_LETTERS}",
            "other": r".",
        }
        named = "|".join(f"(?P<{name}>{pattern})" for name, pattern in groups.items())
        return re.compile(named, re.DOTALL | re.ASCII)


STANDARD: Final = Dialect()
POSTGRES: Final = Dialect(
    escape_strings=True,
    dollar_quotes=True,
    nested_comments=True,
    bodies="CREATE (OR REPLACE )?(FUNCTION|PROCEDURE|RULE)",
)
MYSQL: Final = Dialect(
    backslashes=True,
    backticks=True,
    hash_comments=True,
    code_comments=True,
    bodies=r"BEGIN NOT ATOMIC|CREATE (OR REPLACE )?(AGGREGATE )?(DEFINER (\w+ ){0,2})?"
    r"(FUNCTION|PROCEDURE|TRIGGER|EVENT)",
)
SQLITE: Final = Dialect(
    backticks=True,
    brackets=True,
    bodies=r"(EXPLAIN (QUERY PLAN )?)?CREATE (TEMP |TEMPORARY )?TRIGGER",
)
TSQL: Final = Dialect(
    brackets=True,
    nested_comments=True,
    # A variable lives as long as the batch that declares it; a routine's body is all its batch.
    wholes=rf"DECLARE|IF|WHILE|{BLOCK}"
    r"|(CREATE|ALTER) (OR ALTER )?(PROC|PROCEDURE|FUNCTION|TRIGGER)",
)
ORACLE: Final = Dialect(
    wholes=rf"DECLARE|{BLOCK}|CREATE (OR REPLACE )?((NON)?EDITIONABLE )?"
    r"(FUNCTION|PROCEDURE|PACKAGE|TRIGGER|TYPE)",
)


class Kind(enum.Enum):
    """Of a token. QUOTED is a string or a quoted name, or a part of one that holds its quote."""

    BLANK, COMMENT, QUOTED, WORD = "blank", "comment", "quoted", "word"
    NUMBER, PLACEHOLDER, SEMICOLON, OTHER = "number", "placeholder", "semicolon", "other"


class Token(NamedTuple):
    kind: Kind
    start: int
    end: int


_KINDS: Final = {**{kind.value: kind for kind in Kind}, "double": Kind.OTHER}
_COMMENT_ENDS: Final = re.compile(r"\*/")
_COMMENT_NESTS: Final = re.compile(r"\*/|/\*")


def tokens(sql: str, dialect: Dialect = STANDARD) -> Iterator[Token]:
    """All of *sql*, piece by piece and without gaps."""
    match = dialect.pattern.match
    at, length = 0, len(sql)
    while at < length:
        found = match(sql, at)
        assert found is not None  # noqa: S101  # the last alternative takes anything
        group, end = found.lastgroup, found.end()
        assert group is not None  # noqa: S101  # every alternative has a name
        if group == "opening":
            kind, end = _comment(sql, at, dialect)
        elif group == "dollar":
            closing = sql.find(found[0], end)
            kind, end = Kind.QUOTED, closing + len(found[0]) if closing >= 0 else length
        else:
            kind = _KINDS[group]
        yield Token(kind, at, end)
        at = end


def _comment(sql: str, start: int, dialect: Dialect) -> tuple[Kind, int]:
    """What "/*" at *start* begins, and where that ends. Without an end it is no comment, so that
    the database gets to see it."""
    code = dialect.code_comments and sql.startswith(("/*!", "/*M!"), start)
    depth = 1
    pattern = _COMMENT_NESTS if dialect.nested_comments else _COMMENT_ENDS
    for mark in pattern.finditer(sql, start + 2):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return Kind.OTHER if code else Kind.COMMENT, mark.end()
    return Kind.OTHER, len(sql)


class Statement(NamedTuple):
    """``text`` is what stands at ``start`` in the SQL, without the semicolon that ends it and
    the blanks and comments behind it. Comments in front of it stay."""

    text: str
    start: int


def statements(sql: str, dialect: Dialect = STANDARD) -> list[Statement]:
    """The statements of *sql*, in order. Blanks and comments alone are none."""
    found: list[Statement] = []
    start = end = -1  # -1 until there was a comment or a word; until there was a word
    nesting = _Nesting(dialect)
    for kind, first, last in tokens(sql, dialect):
        if kind is Kind.SEMICOLON and not nesting.holds_semicolons:
            if end >= 0:
                found.append(Statement(sql[start:end], start))
            start = end = -1
            nesting = _Nesting(dialect)
        elif kind is not Kind.BLANK:
            if start < 0:
                start = first
            if kind is not Kind.COMMENT:
                end = last
                nesting.see(kind, sql[first:last] if last - first <= _LONGEST_KEYWORD else "")
    if end >= 0:
        found.append(Statement(sql[start:end], start))
    return found


_LONGEST_KEYWORD: Final = 20  # characters
_WORDS_OF_LEAD: Final = 8  # no pattern looks at more
_NAMED_ENDS: Final = {"IF", "LOOP", "WHILE", "REPEAT", "FOR"}


class _Nesting:
    """What a statement's tokens so far say about the semicolons in it."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._lead = ""  # its first words, each with a blank behind it
        self._words = self._parentheses = self._blocks = 0
        self._before = ""  # the token before
        self._closed = False  # that token was an END, of a block

    @property
    def holds_semicolons(self) -> bool:
        nested = self._parentheses > 0 or self._blocks > 0
        patterns = [self._dialect.wholes, *([self._dialect.bodies] if nested else [])]
        return any(re.match(f"(?:{pattern}) ", self._lead) for pattern in patterns)

    def see(self, kind: Kind, text: str) -> None:
        closed, self._closed = self._closed, False
        if kind is Kind.WORD:
            text = text.upper()
            if self._words < _WORDS_OF_LEAD:
                self._lead += f"{text} "
                self._words += 1
            if not self._parentheses and self._before != ".":
                self._see_word(text, closed)
        elif text == "(":
            self._parentheses += 1
        elif text == ")" and self._parentheses:
            self._parentheses -= 1
        self._before = text

    def _see_word(self, word: str, closed: bool) -> None:
        """BEGIN and CASE end with END, or END CASE. What ends with END IF and the like is not
        counted: it stands inside of a BEGIN."""
        if (closed and word in _NAMED_ENDS) or word == "BEGIN":
            self._blocks += 1
        elif word == "CASE":
            self._blocks += not closed
        elif word == "END" and self._blocks:
            self._blocks -= 1
            self._closed = True


class Control(NamedTuple):
    """``modes`` are those of BEGIN, as SET TRANSACTION takes them; with ``chain``, COMMIT and
    ROLLBACK begin another transaction at once."""

    verb: Literal["BEGIN", "COMMIT", "ROLLBACK"]
    modes: str = ""
    chain: bool = False


_MODE: Final = (
    "ISOLATION LEVEL (?:SERIALIZABLE|REPEATABLE READ|READ COMMITTED|READ UNCOMMITTED|SNAPSHOT)"
    "|READ ONLY|READ WRITE|(?:NOT )?DEFERRABLE|WITH CONSISTENT SNAPSHOT"
)
_NOUN: Final = "(?: WORK| TRANSACTION| TRAN)?"
_BEGIN: Final = re.compile(
    rf"(?:BEGIN(?: DEFERRED| IMMEDIATE| EXCLUSIVE)?{_NOUN}|START TRANSACTION)"
    rf"(?P<modes>(?: (?:{_MODE})(?:,(?! *\Z))?)*+)"
)
_ENDING: Final = re.compile(
    rf"(?:(?P<commit>COMMIT|END)|ROLLBACK|ABORT){_NOUN}"
    r"(?: AND NO CHAIN|(?P<chain> AND CHAIN))?(?: NO RELEASE)?"
)
_LONGEST_CONTROL: Final = 40  # words; one with all modes has less


def transaction_control(statement: str, dialect: Dialect = STANDARD) -> Control | None:
    """What *statement*, as a whole, does to the transaction; None if it is of another kind.

    SAVEPOINT and ROLLBACK TO do not end one, BEGIN in front of other statements is a block.
    """
    words: list[str] = []
    for kind, start, end in tokens(statement, dialect):
        if kind in (Kind.BLANK, Kind.COMMENT, Kind.SEMICOLON):
            continue
        text = statement[start : min(end, start + _LONGEST_KEYWORD)].upper()
        if text == "," and words:
            words[-1] += ","
        elif kind is Kind.WORD and len(words) < _LONGEST_CONTROL:
            words.append(text)
        else:
            return None
    said = " ".join(words)
    if found := _BEGIN.fullmatch(said):
        return Control("BEGIN", found["modes"].strip())
    if found := _ENDING.fullmatch(said):
        return Control("COMMIT" if found["commit"] else "ROLLBACK", chain=bool(found["chain"]))
    return None


_VERBS: Final = {"SELECT", "VALUES", "TABLE", "FROM", "INSERT", "UPDATE", "DELETE", "MERGE"}
_LOOKED_AT: Final = 16 * 1024  # characters: about fifteen milliseconds


def verb(sql: str, dialect: Dialect = STANDARD) -> str:
    """The first word of the last statement, in capitals, and behind WITH the word it leads to;
    "" if there is none, or it is too far away to be looked for.

    It is not to be relied on: what a statement does, and whether it may, the database decides.
    This is for what harms nobody, such as the choice between the statuses 200 and 201.
    """
    if ";" in sql.rstrip("; \t\r\n"):
        found = statements(sql, dialect) if len(sql) <= _LOOKED_AT else []
        sql = found[-1].text if found else ""
    leading = True
    depth = 0
    for kind, start, end in tokens(sql, dialect):
        if start > _LOOKED_AT:
            return ""
        if kind is Kind.WORD:
            word = sql[start:end].upper()
            if leading and word != "WITH":
                return word
            if not depth and word in _VERBS:
                return word
            leading = False
        elif kind is Kind.OTHER:
            depth += {"(": 1, ")": -1}.get(sql[start:end], 0)
    return ""


def no_longer_than(most: float, sql: str) -> str:
    """*sql*, if it has at most *most* characters.

    Raises:
        QueryError: it has more.
    """
    if len(sql) > most:
        raise QueryError(
            f"SQL may have {most} characters (--max-sql), and this has {len(sql)};"
            " many rows are better uploaded, or read from a file"
        )
    return sql
