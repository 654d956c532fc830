"""Strings, comments, statements and transaction control, held against a slow and simple model."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.sqltext import (
    MYSQL,
    ORACLE,
    POSTGRES,
    SQLITE,
    STANDARD,
    TSQL,
    Control,
    Dialect,
    Kind,
    statements,
    tokens,
    transaction_control,
    verb,
)

DIALECTS = {
    "standard": STANDARD,
    "postgres": POSTGRES,
    "mysql": MYSQL,
    "sqlite": SQLITE,
    "tsql": TSQL,
    "oracle": ORACLE,
}


def texts(sql: str, dialect: Dialect = STANDARD) -> list[str]:
    found = statements(sql, dialect)
    for text, start in found:
        assert sql[start : start + len(text)] == text
    return [text for text, _ in found]


def kinds(sql: str, dialect: Dialect = STANDARD) -> list[tuple[str, Kind]]:
    return [(sql[start:end], kind) for kind, start, end in tokens(sql, dialect)]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("  \n\t", []),
        (" ; ;; ", []),
        ("-- a comment", []),
        ("-- one\n ; /* two */ ; -- three", []),
        ("select 1", ["select 1"]),
        ("select 1;", ["select 1"]),
        (" select 1 ; select 2 ", ["select 1", "select 2"]),
        ("select ';', \";\", 'a'';'; select 2", ["select ';', \";\", 'a'';'", "select 2"]),
        ("select 1 -- ; '\n, 2; select 3", ["select 1 -- ; '\n, 2", "select 3"]),
        ("select /* ; ' */ 1; select 2", ["select /* ; ' */ 1", "select 2"]),
        ("select 1; -- the end", ["select 1"]),
        ("select 1 /* the end */; \n", ["select 1"]),
        ("-- first\nselect 1", ["-- first\nselect 1"]),
        ("select 'not closed; select 2", ["select 'not closed; select 2"]),
        ("select 1 /* not closed; select 2", ["select 1 /* not closed; select 2"]),
        ("select \U0001f600; select 'é;'", ["select \U0001f600", "select 'é;'"]),
    ],
)
def test_statements_are_the_same_everywhere(
    dialect: Dialect, sql: str, expected: list[str]
) -> None:
    assert texts(sql, dialect) == expected


@pytest.mark.parametrize(
    ("dialect", "sql", "number"),
    [
        (STANDARD, r"select '\'; select 2", 2),
        (MYSQL, r"select '\'; select 2'; select 3", 2),
        (MYSQL, r"""select "\"; select 2"; select 3""", 2),
        (MYSQL, r"""select "it's"; select 2""", 2),
        (MYSQL, "select 'a; \\", 1),
        (POSTGRES, "select E'a; \\", 1),
        (POSTGRES, r"select E'\'; select 2'; select 3", 2),
        (POSTGRES, r"select e'''\';'; select 3", 2),
        (POSTGRES, "select E'a'  \n\n '\\'; b;'; select 3", 2),
        (POSTGRES, r"select E'a' '\'; select 3", 2),
        (POSTGRES, r"select somE'\'; select 3", 2),
        (POSTGRES, "select $$;$$; select 2", 2),
        (POSTGRES, "select $a$ ; $b$ ; $A$ ; $a$; select 2", 2),
        (POSTGRES, "select a$b$, ';' ; select c$b$", 2),
        (POSTGRES, "select $1$; select $1$", 2),
        (POSTGRES, "select $a b$; select $a b$", 2),
        (POSTGRES, "select $é$;$é$", 1),
        (POSTGRES, "select $a$; never closed $A$;", 1),
        (STANDARD, "select $$;$$; select 2", 3),
        (POSTGRES, "select /* /* ; */ ; */ 1; select 2", 2),
        (STANDARD, "select /* /* ; */ 1; select 2", 2),
        (STANDARD, "select [;]", 2),
        (SQLITE, "select [;], `;`", 1),
        (TSQL, "select [a]];b]; select 2", 2),
        (STANDARD, "select `;`", 2),
        (MYSQL, "select `;``;`; select 2", 2),
        (MYSQL, "select 1 # ; 2\n; select 3", 2),
        (STANDARD, "select 1 # ; 2\n; select 3", 3),
        (MYSQL, "select 1 --; 2\n; select 3", 3),
        (MYSQL, "select 1 -- ; 2\n; select 3", 2),
        (MYSQL, "/*!40101 set names utf8 */; /* no code */; select 1", 2),
        (MYSQL, "/*M! set a = ';' */; select 1", 2),
        (STANDARD, "/*! no code elsewhere */; select 1", 1),
        (STANDARD, "/* a /* b */; select 1", 1),
        (POSTGRES, "/* a /* b */; select 1 */ select 2", 1),
    ],
)
def test_what_quotes_and_comments_are_differs(dialect: Dialect, sql: str, number: int) -> None:
    assert len(texts(sql, dialect)) == number


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (STANDARD, "create trigger t before insert on a for each row begin atomic b; c; end"),
        (
            POSTGRES,
            "create or replace function f() returns int begin atomic select 1; select 2; end",
        ),
        (POSTGRES, "create function f(begin int) returns int return 1"),
        (POSTGRES, "create procedure p() begin atomic select case when a then 1 end; b; end"),
        (POSTGRES, "create rule r as on insert to a do also (delete from b; delete from c)"),
        (SQLITE, "create temp trigger t after insert on a begin update b set c = 1; end"),
        (SQLITE, "create trigger t insert on a begin select case a when 1 then 2 end; b; end"),
        (SQLITE, "explain create trigger t insert on a begin select new.end; select 2; end"),
        (SQLITE, "create /* ; */ trigger t insert on a begin select 1; end"),
        (MYSQL, "create procedure p() begin if a then b; else c; end if; select 1; end"),
        (MYSQL, "create function f() returns int begin l: loop a; end loop l; return 1; end"),
        (MYSQL, "create definer=`a`@`b` trigger t before insert on c for each row begin d; e; end"),
        (MYSQL, "create definer = root@localhost event e do begin a; b; end"),
        (MYSQL, "create procedure p() begin case a when 1 then b; end case; begin c; end; d; end"),
        (
            MYSQL,
            "create procedure p() begin while a do b; end while; repeat c; until d end repeat;end",
        ),
        (MYSQL, "begin not atomic select 1; select 2; end"),
    ],
)
def test_a_body_holds_semicolons_up_to_its_end(dialect: Dialect, body: str) -> None:
    assert texts(f"{body}; select 2; select 3", dialect) == [body, "select 2", "select 3"]
    assert texts(body.upper(), dialect) == [body.upper()]


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        (POSTGRES, "begin; select 1; end"),
        (
            POSTGRES,
            "create table t (a int default (case when true then 1 end)); select 1; select 2",
        ),
        (POSTGRES, "create table begin (a int); create table f (b int); select 1"),
        (POSTGRES, "select (1; select 2); select 3"),
        (SQLITE, "create table trigger_ (a); insert into b values (1); select case when a then b"),
        (TSQL, "begin tran; update a set b = 1; commit"),
        (TSQL, "begin; update a set b = 1; commit"),
        (ORACLE, "begin; update a set b = 1; commit"),
        (ORACLE, "begin isolation level serializable; update a set b = 1; commit"),
    ],
)
def test_everything_else_ends_at_its_semicolon(dialect: Dialect, sql: str) -> None:
    assert len(texts(sql, dialect)) == 3


@pytest.mark.parametrize(
    ("dialect", "whole"),
    [
        (TSQL, "declare @a int; set @a = 1; select @a;"),
        (TSQL, "create or alter procedure p as select 1; select 2"),
        (TSQL, "if 1 = 1 begin select 1; select 2; end; select 3"),
        (TSQL, "begin try select 1; end try begin catch select 2; end catch"),
        (ORACLE, "begin a; b; end;"),
        (ORACLE, "declare a int; begin b; end;"),
        (ORACLE, "create or replace editionable package p as a; b; end;"),
    ],
)
def test_some_statements_go_on_to_the_end_of_the_text(dialect: Dialect, whole: str) -> None:
    assert texts(f"select 0; {whole}", dialect) == ["select 0", whole]


def test_a_statement_knows_where_it_stood() -> None:
    sql = "\n-- é\nselect 1;\n\tselect 2"
    assert [start for _, start in statements(sql)] == [1, 17]


def test_tokens_have_kinds() -> None:
    assert kinds("a.b = :x::int -- c") == [
        ("a", Kind.WORD),
        (".", Kind.OTHER),
        ("b", Kind.WORD),
        (" ", Kind.BLANK),
        ("=", Kind.OTHER),
        (" ", Kind.BLANK),
        (":x", Kind.PLACEHOLDER),
        ("::", Kind.OTHER),
        ("int", Kind.WORD),
        (" ", Kind.BLANK),
        ("-- c", Kind.COMMENT),
    ]


BEGIN, COMMIT, ROLLBACK = Control("BEGIN"), Control("COMMIT"), Control("ROLLBACK")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("begin", BEGIN),
        ("BEGIN WORK;", BEGIN),
        ("begin tran", BEGIN),
        ("/* so */ Begin -- it\n Transaction", BEGIN),
        ("begin immediate", BEGIN),
        ("begin exclusive transaction", BEGIN),
        ("start transaction", BEGIN),
        ("begin read only", Control("BEGIN", "READ ONLY")),
        (
            "start transaction isolation level repeatable read , read write, not deferrable",
            Control("BEGIN", "ISOLATION LEVEL REPEATABLE READ, READ WRITE, NOT DEFERRABLE"),
        ),
        (
            "begin isolation level serializable read only",
            Control("BEGIN", "ISOLATION LEVEL SERIALIZABLE READ ONLY"),
        ),
        (
            "start transaction with consistent snapshot",
            Control("BEGIN", "WITH CONSISTENT SNAPSHOT"),
        ),
        ("commit", COMMIT),
        ("commit work", COMMIT),
        ("end", COMMIT),
        ("end transaction", COMMIT),
        ("commit and no chain", COMMIT),
        ("commit no release", COMMIT),
        ("commit and chain", Control("COMMIT", chain=True)),
        ("rollback", ROLLBACK),
        ("abort work", ROLLBACK),
        ("rollback transaction and chain", Control("ROLLBACK", chain=True)),
        ("", None),
        ("start", None),
        ("start work", None),
        ("begin, read only", None),
        ("begin read only,", None),
        ("begin read", None),
        ("begin select 1; end", None),
        ("begin not atomic select 1; end", None),
        ("begin tran named", None),
        ("begin 'work'", None),
        ("rollback to a", None),
        ("rollback work to savepoint a", None),
        ("savepoint a", None),
        ("commit prepared 'a'", None),
        ("commit and", None),
        ("committed", None),
        ("end loop", None),
        ("select 1", None),
        ('"begin"', None),
        ("begin work" + "s" * 100, None),
        ("begin transactiontransactiontransaction", None),
    ],
)
def test_transaction_control_is_a_whole_statement(statement: str, expected: Control | None) -> None:
    assert transaction_control(statement) == expected


HOSTILE = {
    "quotes": "'" * 30_001,
    "double quotes": '"' * 30_001,
    "escapes": "e'" + "\\'" * 20_000,
    "pieces": "e'" + "'\n" * 20_000,
    "opened comments": "/*" * 20_000,
    "comments": "/**/" * 10_000,
    "nested comments": "/*" * 10_000 + "*/" * 10_000,
    "tags": "$a$" * 10_001,
    "dollars": "$" * 20_000,
    "tags without end": "$a" * 20_000,
    "words with dollars": "a$" * 20_000,
    "brackets": "[" * 10_000 + "]" * 20_000,
    "backticks": "`" * 20_001,
    "dashes": "-" * 20_000,
    "semicolons": ";" * 20_000,
    "blanks": " " * 30_000 + ";",
    "blocks": "create function " + "begin " * 5_000 + ";" * 10_000,
    "statements": "declare " + "a;" * 10_000,
}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_hostile_text_takes_linear_time(dialect: Dialect) -> None:
    for name, sql in HOSTILE.items():
        began = time.process_time()
        statements(sql, dialect)
        transaction_control(sql, dialect)
        # 0.05 s is usual, quadratic time would take a minute.
        assert time.process_time() - began < 5, name


class Model:
    """One character after the other, as the manuals tell it. No bodies."""

    def __init__(self, sql: str, dialect: Dialect) -> None:
        self.sql, self.dialect, self.at = sql, dialect, 0

    def split(self) -> list[str]:
        found: list[str] = []
        start = end = None
        while self.at < len(self.sql):
            begin, character = self.at, self.sql[self.at]
            what = self.step()
            if character == ";" and what == "code":
                found += [self.sql[start:end]] if end else []
                start = end = None
            elif what != "blank":
                start = begin if start is None else start
                end = self.at if what == "code" else end
        return found + ([self.sql[start:end]] if end else [])

    def sees(self, text: str) -> bool:
        return self.sql.startswith(text, self.at)

    def step(self) -> str:
        """Move behind the next thing; whether it is code, blank or a comment."""
        dialect, character = self.dialect, self.sql[self.at]
        if character in " \n":
            self.at += 1
            return "blank"
        behind_dashes = self.sql[self.at + 2 : self.at + 3]
        dashes = self.sees("--") and (not dialect.hash_comments or behind_dashes in tuple(" \n"))
        if dashes or (dialect.hash_comments and character == "#"):
            while self.at < len(self.sql) and self.sql[self.at] != "\n":
                self.at += 1
            return "comment"
        if self.sees("/*"):
            return self.comment()
        if dialect.escape_strings and character in "eE" and self.sql[self.at + 1 :][:1] == "'":
            self.at += 1
            self.string("'", escapes=True)
            while self.continues():
                self.string("'", escapes=True)
        elif character in "'\"":
            self.string(character, escapes=dialect.backslashes)
        elif character == "`" and dialect.backticks:
            self.string("`")
        elif character == "[" and dialect.brackets:
            self.string("]")
        elif character.isalnum():
            while self.at < len(self.sql) and (self.sql[self.at].isalnum() or self.sees("$")):
                self.at += 1
                if character.isdigit() and self.sees("$"):
                    break
        elif character == "$" and dialect.dollar_quotes and (tag := self.tag()):
            closing = self.sql.find(tag, self.at + len(tag))
            self.at = len(self.sql) if closing < 0 else closing + len(tag)
        else:
            self.at += 1
        return "code"

    def tag(self) -> str:
        head, dollar, _ = self.sql[self.at + 1 :].partition("$")
        fine = not head or (head.isalnum() and head[0].isalpha())
        return f"${head}$" if dollar and fine else ""

    def continues(self) -> bool:
        ahead = self.at
        while self.sql[ahead : ahead + 1] in (" ", "\n"):
            ahead += 1
        if "\n" in self.sql[self.at : ahead] and self.sql[ahead : ahead + 1] == "'":
            self.at = ahead
            return True
        return False

    def comment(self) -> str:
        runs = self.dialect.code_comments and (self.sees("/*!") or self.sees("/*M!"))
        depth = 0
        while self.at < len(self.sql):
            if self.sees("/*") and (depth == 0 or self.dialect.nested_comments):
                depth += 1
                self.at += 2
            elif self.sees("*/"):
                depth -= 1
                self.at += 2
                if depth == 0:
                    return "code" if runs else "comment"
            else:
                self.at += 1
        return "code"

    def string(self, quote: str, *, escapes: bool = False) -> None:
        self.at += 1
        while self.at < len(self.sql):
            if self.sees(quote * 2) or (escapes and self.sees("\\")):
                self.at += 2
            elif self.sees(quote):
                self.at += 1
                return
            else:
                self.at += 1
        self.at = len(self.sql)


PIECES = [
    "'",
    "''",
    '"',
    "`",
    "[",
    "]",
    "\\",
    "e'",
    "E",
    "$",
    "$$",
    "$a$",
    "a",
    "1",
    ";",
    "--",
    "#",
]
PIECES += ["/*", "*/", "/*!", "\n", " ", "'\n'", "begin", "end", "(", ")", "é", "-", "/", "*", "!"]
SQL = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@given(sql=SQL)
def test_the_model_finds_the_same_statements(dialect: Dialect, sql: str) -> None:
    plain = replace(dialect, bodies="(?!)", wholes="(?!)")
    assert texts(sql, plain) == Model(sql, dialect).split()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@given(sql=SQL)
def test_tokens_have_no_gaps(dialect: Dialect, sql: str) -> None:
    found = list(tokens(sql, dialect))
    assert "".join(sql[start:end] for _, start, end in found) == sql
    assert all(start < end for _, start, end in found)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "SELECT"),
        ("insert into t values (1)", "INSERT"),
        ("-- a comment\n /* and another */ INSERT INTO t SELECT 1;", "INSERT"),
        ("INSERT INTO t VALUES (1); SELECT 1", "SELECT"),
        ("SELECT ';'; INSERT INTO t VALUES (1) ;; ", "INSERT"),
        ("WITH a AS (SELECT 1) INSERT INTO t FROM a", "INSERT"),
        ("WITH a AS (INSERT INTO t VALUES (1) RETURNING i) SELECT * FROM a", "SELECT"),
        ("WITH RECURSIVE a(x) AS (VALUES (1)) DELETE FROM t", "DELETE"),
        ("(SELECT 1)", "SELECT"),
        ("EXPLAIN INSERT INTO t VALUES (1)", "EXPLAIN"),
        ("'insert'", ""),
        ("WITH", ""),
        ("", ""),
        (" ; -- nothing", ""),
    ],
)
def test_verbs(sql: str, expected: str) -> None:
    assert verb(sql) == expected


def test_the_verb_of_much_sql_is_looked_for_where_it_costs_nothing() -> None:
    rows = ", ".join(["(1, 'x')"] * 100_000)
    begun = time.thread_time()
    assert verb(f"INSERT INTO t VALUES {rows};\n") == "INSERT"
    assert verb(f"SELECT 1; INSERT INTO t VALUES {rows}") == ""
    assert verb(f"WITH a AS (VALUES {rows}) INSERT INTO t FROM a") == ""
    assert time.thread_time() - begun < 0.2


@given(st.text() | SQL)
def test_no_text_is_too_odd_to_have_a_verb(sql: str) -> None:
    assert verb(sql) == verb(sql).upper()
