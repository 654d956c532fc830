"""scoot.el as it is: the bytes it was recorded to send to scoot-server, and what it needs to get.

``scoot-el.txt`` has one recorded message a line, as a Python bytes literal: requests whole, of the
answers their bodies. It was Emacs' own HTTP client: Accept twice, Content-Type on a GET, and
lower case where others have capitals. It opens a connection for each request.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Postgres

LINES = Path(__file__).with_name("scoot-el.txt").read_text().splitlines()
SENT = [ast.literal_eval(line[4:]) for line in LINES if line.startswith("C>S")]
RECEIVED = [json.loads(ast.literal_eval(line[4:])) for line in LINES if line.startswith("S>C")]
PING, REGISTER, MANAGER, _, TABLES, SCHEMAS, QUERY, DESCRIBE, MODIFY, WRONG = range(10)

RECORDED_URL = b"postgresql+psycopg://postgres@127.0.0.1:55432/postgres"
SCHEMA = """
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, email varchar(40) UNIQUE DEFAULT 'x',
    amt numeric(10, 2) CHECK (amt > 0), created timestamptz, js jsonb, u uuid, arr int[]);
CREATE TABLE orders (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users (id),
    status varchar(10) CHECK (status IN ('new', 'done')));
CREATE VIEW emails AS SELECT email FROM users;
INSERT INTO users (name, email, amt, created, js, u, arr) VALUES
    ('Alice', 'a@e.com', 1.5, '2020-01-02 03:04:05+00', '{"k": 1}',
        '00000000-0000-0000-0000-000000000001', '{1,2}'),
    ('Bob', NULL, 2.25, NULL, NULL, NULL, NULL);
INSERT INTO orders (user_id, status) VALUES (1, 'new'), (1, 'new'), (1, 'done');
"""


class Emacs:
    """Sends what was recorded, to the database that is there."""

    def __init__(self, port: int, url: str) -> None:
        self._port = port
        self._url = url.encode()

    def say(self, number: int) -> tuple[str, Any]:
        request = SENT[number].replace(RECORDED_URL, self._url)
        longer = len(request) - len(SENT[number])
        request = re.sub(
            rb"(?<=Content-length: )\d+", lambda match: b"%d" % (int(match[0]) + longer), request
        )
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as file:
                status = file.readline().decode().rstrip()
                fields = {}
                while line := file.readline().decode().rstrip():
                    name, _, value = line.partition(": ")
                    fields[name.lower()] = value
                assert fields["content-type"] == "application/json"
                body = file.read(int(fields["content-length"]))
                if "content-encoding" in fields:
                    body = gzip.decompress(body)
                return status, json.loads(body)


@pytest.fixture(scope="module")
def emacs(postgres_server: Postgres) -> Iterator[Emacs]:
    with Server() as server:
        url = postgres_server.url
        emacs = Emacs(server.port, url.replace("postgresql://", "postgresql+psycopg://"))
        status, answer = emacs.say(REGISTER)
        assert status == "HTTP/1.1 200 OK", answer
        body = json.dumps({"sql": SCHEMA}).encode()
        head = SENT[QUERY].partition(b"\r\n\r\n")[0]
        head = re.sub(rb"(?<=Content-length: )\d+", b"%d" % len(body), head)
        SENT.append(head + b"\r\n\r\n" + body)
        assert emacs.say(len(SENT) - 1)[0] == "HTTP/1.1 200 OK"
        SENT.pop()
        yield emacs


def test_ping_says_ok_in_its_status_line_too(emacs: Emacs) -> None:
    # It looks for "200 OK"; without it, it takes the server for dead and starts its own.
    assert emacs.say(PING) == ("HTTP/1.1 200 OK", RECEIVED[PING])


def test_a_connection_is_registered_and_found_where_it_looks_for_it(
    emacs: Emacs, postgres_server: Postgres
) -> None:
    status, answer = emacs.say(REGISTER)
    assert status == "HTTP/1.1 200 OK"
    recorded = RECEIVED[REGISTER]["connection"]
    there = {"port": postgres_server.port, "username": "notebook", "database": "notebook"}
    assert answer == {"status": "ok", "connection": recorded | there}
    assert list(answer["connection"]) == list(recorded)
    told = emacs.say(MANAGER)[1]["contexts"]["default"]["connections"]["el"]
    assert told == {"status": "active", **answer["connection"]}


def test_tables_come_with_their_rows_and_without_views(emacs: Emacs) -> None:
    status, answer = emacs.say(TABLES)
    assert status == "HTTP/1.1 200 OK"
    assert answer == {**RECEIVED[TABLES], "tables": sorted(RECEIVED[TABLES]["tables"])}


def test_schemas_are_those_of_the_database(emacs: Emacs) -> None:
    assert set(RECEIVED[SCHEMAS]["schemas"]) <= set(emacs.say(SCHEMAS)[1]["schemas"])


def without(model: dict[str, Any]) -> dict[str, Any]:
    """A column's model, but for where scoot-server is wrong: each integer has 64 bits with it, each
    timestamp ten digits of a second, no column a default, and each check comes twice."""
    kept = {key: value for key, value in model.items() if key not in ("typespec", "default")}
    if "constraints" in kept:
        kept["constraints"] = [
            each
            for number, each in enumerate(kept["constraints"])
            if each not in kept["constraints"][:number]
        ]
    return kept


def similar(ours: list[dict[str, Any]], recorded: list[dict[str, Any]]) -> None:
    for one, other in zip(ours, recorded, strict=True):
        assert list(one) == list(other)
        assert without(one) | {"native_type": ""} == without(other) | {"native_type": ""}
        assert (one["typespec"] or {}).keys() == (other["typespec"] or {}).keys()


def test_a_query_has_the_rows_and_tells_where_its_columns_are_from(emacs: Emacs) -> None:
    status, answer = emacs.say(QUERY)
    assert status == "HTTP/1.1 200 OK"
    recorded = RECEIVED[QUERY]
    assert list(answer) == list(recorded)
    assert answer["columns"] == recorded["columns"]
    assert answer["rows"] == recorded["rows"]
    similar(answer["metadata"]["columns"], recorded["metadata"]["columns"])


def test_a_condition_is_added_and_the_statement_that_ran_is_told(emacs: Emacs) -> None:
    status, answer = emacs.say(MODIFY)
    assert status == "HTTP/1.1 200 OK"
    recorded = RECEIVED[MODIFY]
    assert answer["rows"] == recorded["rows"]
    assert list(answer["metadata"]) == list(recorded["metadata"])
    assert answer["metadata"]["stmt"] == recorded["metadata"]["stmt"]
    similar(answer["metadata"]["columns"], recorded["metadata"]["columns"])


def test_a_table_is_described(emacs: Emacs) -> None:
    status, answer = emacs.say(DESCRIBE)
    assert status == "HTTP/1.1 200 OK"
    recorded = RECEIVED[DESCRIBE]
    assert list(answer) == list(recorded)
    assert answer["name"] == "users"
    similar(answer["columns"], recorded["columns"])
    defaults = {each["name"]: each["default"] for each in answer["columns"]}
    assert defaults["email"] == "'x'::character varying"
    assert answer["constraints"] == recorded["constraints"][:1]
    assert answer["create_stmt"].startswith("CREATE TABLE")


def test_a_mistake_is_the_clients_and_says_what_it_was(emacs: Emacs) -> None:
    status, answer = emacs.say(WRONG)
    assert status == "HTTP/1.1 400 Bad Request"  # scoot-server: 500
    assert (answer["status"], answer["error"]) == ("error", RECEIVED[WRONG]["error"])
    assert 'syntax error at or near "selec"' in answer["message"]
