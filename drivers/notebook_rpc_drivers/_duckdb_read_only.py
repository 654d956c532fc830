"""A DuckDB connection that can only read, beside others that write to the same database.

A database has one access mode in a process, so three things of the engine's keep it from writing:

- its parser says which statements are queries, or an EXPLAIN of one. COPY, ATTACH, SET, LOAD,
  CALL and the like reach beyond any transaction, and are refused;
- each query runs in a transaction that is READ ONLY: INSERT, CREATE and nextval() fail in it,
  also inside of views and macros;
- its planner says which table functions a query comes down to, whatever views, macros and
  query() have hidden. Some write all the same: enable_logging() to files and for everybody,
  json_execute_serialized_sql() by a connection of its own, others of extensions. So those that
  are known to read may run, and no others.

What it refuses: PIVOT without an IN list, as the engine runs part of it to plan it; and
transactions of the client's own. What stays possible: to read whatever the process can read
(``--allowed-paths`` bounds that); to fill the engine's log, where that is on; and to have DuckDB
install an official extension that a query asks for (``-P autoinstall_known_extensions false``).
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import duckdb
from duckdb import Statement, StatementType

from notebook_rpc.errors import QueryError
from notebook_rpc_drivers._duckdb_connection import Connection
from notebook_rpc_drivers._duckdb_parse import parsed
from notebook_rpc_drivers._duckdb_sql import bindable, tokens, type_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.model import Parameters
    from notebook_rpc_drivers._duckdb_connection import R
    from notebook_rpc_drivers._duckdb_result import Form
    from notebook_rpc_drivers._duckdb_sql import Bound

# On a line of its own, so that the excerpts in errors are of the query alone.
_PLAN: Final = "EXPLAIN (FORMAT json)\n"
_QUERY: Final = re.compile(rb'"?query(?:_t|"|(?![0-9a-z_$\x80-\xff]))', re.IGNORECASE)
_EXCERPT: Final = re.compile(r"\n\nLINE (\d+): ([^\n]*)\n( *)(?=\^)")

# What the engine calls the steps of a plan that compute, and neither read nor write.
OPERATORS: Final = frozenset(
    """
    asof_join blockwise_nl_join chunk_scan column_data_scan cross_product cte cte_scan delim_scan
    dummy_scan empty_result expression_scan filter hash_group_by hash_join ie_join left_delim_join
    limit limit_percent nested_loop_join order_by partitioned_aggregate perfect_hash_group_by
    piecewise_merge_join pivot positional_join positional_scan projection rec_cte rec_cte_scan
    rec_key_cte rec_rec_cte_scan reservoir_sample result_collector right_delim_join
    streaming_limit streaming_sample streaming_window top_n ungrouped_aggregate union unnest window
    """.split()  # noqa: SIM905  # as strings in a list, they fill a page
)
# Table functions that read: of the engine, then of the extensions it knows.
READS: Final = frozenset(
    """
    duckdb_approx_database_count duckdb_available_metrics duckdb_columns duckdb_connection_count
    duckdb_constraints duckdb_coordinate_systems duckdb_databases duckdb_dependencies
    duckdb_dialects duckdb_eviction_queues duckdb_extension_repositories duckdb_extensions
    duckdb_external_file_cache duckdb_external_resource_types duckdb_functions
    duckdb_grammar_extensions duckdb_indexes duckdb_keywords duckdb_log_contexts
    duckdb_logs duckdb_memory duckdb_optimizers duckdb_prepared_statements duckdb_schemas
    duckdb_secret_type_parameters duckdb_secret_types duckdb_secrets duckdb_sequences
    duckdb_settings duckdb_table_sample duckdb_tables duckdb_temporary_files duckdb_triggers
    duckdb_types duckdb_variables duckdb_views generate_series glob icu_calendar_names json_each
    json_tree parquet_bloom_probe parquet_file_metadata parquet_full_metadata parquet_kv_metadata
    parquet_metadata parquet_scan parquet_schema pg_timezone_names pragma_collations
    pragma_database_size pragma_metadata_info pragma_platform pragma_show pragma_storage_info
    pragma_table_info pragma_user_agent pragma_version range read_blob read_csv
    read_csv_auto read_duckdb read_json read_json_auto read_json_objects read_json_objects_auto
    read_ndjson read_ndjson_auto read_ndjson_objects read_parquet read_single_csv_file
    read_single_json_file read_single_parquet_file read_text repeat repeat_row seq_scan sniff_csv
    summary test_all_types test_vector_types unnest which_secret

    delta_scan ducklake_scan iceberg_metadata iceberg_scan iceberg_snapshots mysql_scan
    postgres_scan postgres_scan_pushdown read_avro read_xlsx sqlite_scan st_drivers st_read
    st_read_meta
    """.split()  # noqa: SIM905  # as strings in a list, they fill a page
)


class ReadOnlyConnection(Connection):
    """Its transaction is hidden, and ends with each result."""

    _reading = False  # that transaction is open
    _held = False  # for more than one statement

    def begin_snapshot(self) -> None:
        self._begin_reading()
        self._held = True

    def end_snapshot(self) -> None:
        self._held = False
        self._end_reading()

    def make_little_ahead(self) -> None:
        """Not here: a setting that is refused would take the hidden transaction with it."""

    def upload(self, *_: object) -> int:
        raise QueryError("a read-only connection takes no uploads")

    def _run(self, sql: str, parameters: Parameters | None, form: Form[R]) -> R:
        self._finish()
        statements = parsed(self, sql)
        # To plan a query is to run the arguments of its table functions: setseed(), for one.
        used, self._notes.used = self._notes.used, True
        try:
            self._begin_reading()
            for number, statement in enumerate(statements, 1):
                bound = bindable(parameters) if number == len(statements) else None
                before = after = ""
                if len(statements) > 1:
                    before, after = f"statement {number} of {len(statements)}: ", " (nothing ran)"
                with self.calling(before=before, after=after):
                    self._judge(statement, bound)
            self._notes.used = used
            result = super()._run(sql, parameters, form)
        except BaseException:
            self._end_reading()
            raise
        if not result.streaming:
            self._end_reading()
        return result

    def end_stream(self) -> None:
        try:
            super().end_stream()
        finally:
            self._end_reading()

    def _begin_reading(self) -> None:
        if self._held:
            return
        self._end_reading()
        with self.calling():
            self._own.execute("BEGIN TRANSACTION READ ONLY")
        self._reading = True

    def _end_reading(self) -> None:
        if self._reading and not self._held:
            self._reading = False
            # Without a transaction, the engine has ended it.
            with self.calling(undisturbed=True), suppress(duckdb.TransactionException):
                self._own.rollback()

    def _judge(self, statement: Statement, bound: Bound) -> None:
        query = self._query_of(statement)
        if _binds_text(query):
            raise _refused(
                "cannot run query() and query_table(): their text could change meanwhile"
            )
        for step in _steps(self._plan_of(query, bound)):
            if step not in OPERATORS and step not in READS:
                raise _refused(f"cannot run {step}: it is not known to only read")

    def _query_of(self, statement: Statement) -> str:
        """The query that *statement* is, or explains."""
        kind = type_of(statement)
        if kind == StatementType.SELECT:
            return statement.query
        if kind == StatementType.EXPLAIN:
            for explained in _explained(statement.query):
                with suppress(duckdb.ParserException):
                    kinds = [type_of(each) for each in self._own.extract_statements(explained)]
                    if kinds == [StatementType.SELECT]:
                        return explained
            raise _refused("can have queries explained, and nothing else")
        if kind == StatementType.MULTI:
            raise _refused("needs the values of a PIVOT: ON column IN (1, 2)")
        if kind is None:  # UPDATE EXTENSIONS: a kind that has no name in Python
            raise _refused("can run queries, and nothing else")
        raise _refused(f"can run queries, and no {kind.name.replace('_', ' ')} statement")

    def _plan_of(self, query: str, bound: Bound) -> list[Any]:
        try:
            (explain,) = self._own.extract_statements(_PLAN + query)
            plans = self._own.execute(explain, bound).fetchall()
            return [step for _, plan in plans for step in json.loads(plan)]
        except duckdb.Error as exc:
            raise type(exc)(_EXCERPT.sub(_a_line_less, str(exc))) from exc
        except RecursionError as exc:
            raise _refused("cannot run a query that is nested as deep as this") from exc


def _binds_text(query: str) -> bool:
    """Whether it calls a function whose argument, a text, becomes a part of the query. That is
    computed when the plan is made, and once more when it runs: with random() in it, what was
    judged and what runs are two things."""
    calls = pairwise(tokens(query))
    return any(_QUERY.match(name) and after[:1] == b"(" for (_, name), (_, after) in calls)


def _refused(why: str) -> duckdb.Error:
    """As if the engine had said it, so that the error tells which of several statements it was."""
    return duckdb.PermissionException(f"a read-only connection {why}")


def _explained(sql: str) -> Iterator[str]:
    """What may be the statement in *sql*, an EXPLAIN: all behind its first words, or behind
    a list of options. Which of them it is, the parser finds out."""
    encoded, rest = sql.encode(), tokens(sql)[1:]
    if rest and rest[0][1].upper().startswith(b"ANALYZE"):
        rest = rest[1:]
    if not rest:
        return
    yield encoded[rest[0][0] :].decode()
    if rest[0][1].startswith(b"("):
        # No option has parentheses of its own.
        end = next((at for at, text in rest if text.startswith(b")")), len(encoded))
        yield encoded[end + 1 :].decode()


def _steps(plan: list[Any]) -> Iterator[str]:
    """Of a plan and all below: the names of operators, or of table functions."""
    left = list(plan)
    while left:
        step = left.pop()
        left += step["children"]
        name = step["name"].strip().lower()
        # A table function that is fed by a query stands behind the operator that feeds it.
        yield step["extra_info"].get("Name", name).lower() if name == "inout_function" else name


def _a_line_less(excerpt: re.Match[str]) -> str:
    number, line, margin = int(excerpt[1]), excerpt[2], excerpt[3]
    shorter = len(f"{number}") - len(f"{number - 1}")
    return f"\n\nLINE {number - 1}: {line}\n{margin[shorter:]}"
