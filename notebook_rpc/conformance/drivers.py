"""What every driver must do: the table of all checks, and how one is run.

A check is a function that takes a ``Subject``, and raises ``Failed`` where a promise of
``notebook_rpc.driver`` is broken. Its name and its sentence are those of the function. It runs
on a thread of its own, within a limit of time: a driver that hangs must not hang the suite.
"""

from __future__ import annotations

import enum
import inspect
import time
import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from notebook_rpc.conformance import (
    _brief,
    _catalog,
    _describe,
    _interrupts,
    _opening,
    _results,
    _statements,
    _touched,
    _transactions,
    _values,
)
from notebook_rpc.conformance.calls import BETWEEN, Call
from notebook_rpc.conformance.outcomes import Failed, Skipped, Unchecked, described
from notebook_rpc.conformance.subject import Subject
from notebook_rpc.driver import SupportsInterrupt
from notebook_rpc.errors import NotebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notebook_rpc.conformance.dialect import Dialect
    from notebook_rpc.driver import Driver

TIME_LIMIT: Final = 60.0  # seconds for one check
GRACE: Final = 5.0  # seconds for a check to end when it is interrupted, and to clean up


@dataclass(frozen=True)
class Check:
    """``capability`` is the row of the matrix in docs/drivers.md that the check belongs to."""

    capability: str
    function: Callable[[Subject], None]

    @property
    def name(self) -> str:
        return self.function.__name__.replace("_", "-")

    @property
    def sentence(self) -> str:
        """What is checked."""
        first, _, _ = inspect.cleandoc(self.function.__doc__ or "").partition("\n\n")
        return " ".join(first.split())


_CAPABILITIES: Final[Mapping[str, tuple[Callable[[Subject], None], ...]]] = {
    "pages of rows": (
        _results.rows_come_in_pages,
        _results.text_comes_in_the_same_pages,
        _results.the_next_statement_closes_the_result,
        _results.a_closed_result_gives_no_rows,
        _results.a_failed_result_does_not_look_ended,
        _results.large_results_are_whole,
        _results.wide_rows_are_whole,
    ),
    "rows as they come, memory flat": (
        _results.first_rows_do_not_wait_for_the_last,
        _results.closing_early_does_not_wait,
    ),
    "names of columns": (
        _results.duplicate_names_are_made_distinct,
        _results.column_names_are_kept,
    ),
    "counts of touched rows": (
        _results.a_statement_without_rows_counts,
        _results.ddl_counts_nothing,
        _results.update_and_delete_count,
    ),
    "RETURNING": (_results.returning_gives_rows,),
    "several statements at once": (
        _statements.all_statements_run,
        _statements.no_statement_is_an_error,
        _statements.ends_of_statements_do_no_harm,
        _statements.semicolons_are_seen_through,
        _statements.errors_name_the_statement,
    ),
    "parameters by position": (
        _statements.parameters_by_position,
        _statements.parameters_belong_to_the_last_statement,
        _statements.parameters_are_no_sql,
        _statements.odd_parameters_do_not_break,
        _statements.marks_in_strings_are_no_parameters,
        _statements.wrong_parameters_are_errors,
    ),
    "parameters by name": (
        _statements.parameters_by_name,
        _statements.marks_in_strings_are_no_named_parameters,
        _statements.wrong_names_are_errors,
    ),
    "errors": (
        _statements.errors_leave_the_connection_usable,
        _statements.errors_of_the_data_are_query_errors,
        _statements.positions_point_at_the_place,
        _statements.broken_unicode_is_an_error,
        _statements.null_characters_do_not_break,
    ),
    "NULL": (_values.nulls,),
    "text": (_values.texts, _values.empty_text),
    "integers of 64 bits": (_values.integers,),
    "exact decimals": (_values.decimals,),
    "floats": (_values.floats,),
    "NaN and infinities": (_values.special_floats,),
    "booleans": (_values.booleans,),
    "bytes": (_values.byte_strings,),
    "dates": (_values.dates,),
    "times": (_values.times,),
    "timestamps": (_values.timestamps,),
    "transactions": (
        _transactions.autocommit_is_the_rule,
        _transactions.a_transaction_is_hidden_until_commit,
        _transactions.rollback_undoes,
        _transactions.rollback_tells_whether,
        _transactions.a_commit_is_true_or_an_error,
        _transactions.closing_rolls_back,
    ),
    "state of the transaction": (
        _transactions.the_state_of_the_transaction_is_told,
        _transactions.a_failed_statement_tells_the_state,
        _transactions.an_interrupted_statement_tells_the_state,
    ),
    "DDL in transactions": (
        _transactions.ddl_is_rolled_back,
        _transactions.uncommitted_tables_are_in_the_catalog,
    ),
    "tables and columns": (
        _catalog.tables_have_their_columns,
        _catalog.names_that_do_not_exist_have_no_columns,
        _catalog.dropped_tables_are_gone,
        _catalog.others_tables_are_seen,
        _catalog.odd_names_are_kept,
        _catalog.names_are_no_patterns,
        _catalog.names_work_in_sql,
    ),
    "views": (_catalog.views_are_no_tables,),
    "temporary tables": (
        _catalog.temporary_tables_are_private,
        _catalog.temporary_tables_are_seen_beside_a_result,
    ),
    "catalog beside an open result": (_catalog.the_catalog_leaves_a_result_alone,),
    "structure of tables": (
        _describe.columns_are_described,
        _describe.nulls_and_defaults_are_described,
        _describe.views_are_described,
        _describe.tables_that_do_not_exist_are_unknown,
        _describe.tables_are_described_under_any_name,
        _describe.descriptions_are_never_old,
        _describe.descriptions_are_of_the_own_transaction,
        _describe.temporary_tables_are_described,
        _describe.schemas_and_databases_are_listed,
    ),
    "keys and conditions of tables": (
        _describe.keys_are_described,
        _describe.checks_are_described,
        _describe.create_statements_make_the_table_again,
    ),
    "cancelling": (
        _interrupts.interrupts_stop_a_statement,
        _interrupts.interrupts_stop_a_fetch,
        _interrupts.interrupts_are_felt_soon,
        _interrupts.interrupts_between_calls_do_nothing,
        _interrupts.interrupts_after_the_end_do_nothing,
        _interrupts.interrupts_spare_other_connections,
        _interrupts.interrupts_may_come_at_any_time,
        _interrupts.interrupted_catalog_calls_spare_a_transaction,
        _interrupts.interrupted_catalog_calls_spare_a_result,
    ),
    "progress": (_interrupts.progress_is_a_fraction,),
    "connections beside each other": (_interrupts.connections_do_not_wait_for_each_other,),
    "read-only": (_opening.read_only_is_enforced,),
    "read-only users": (_opening.read_only_connections_are_enforced,),
    "properties and secrets": (
        _opening.unknown_properties_are_named,
        _opening.the_description_is_for_people,
        _opening.passwords_are_never_shown,
    ),
    "tables that are touched": (
        _touched.written_tables_are_told,
        _touched.all_statements_of_a_call_are_told,
        _touched.writes_are_told_when_they_are_committed,
        _touched.tables_behind_views_are_read,
        _touched.new_tables_may_change_anything,
        _touched.queries_write_nothing,
        _touched.asking_what_is_read_runs_nothing,
    ),
    "brief queries": (
        _brief.what_writes_is_not_brief,
        _brief.what_is_brief_may_be_run_twice,
    ),
}
CHECKS: Final = tuple(
    Check(capability, function)
    for capability, functions in _CAPABILITIES.items()
    for function in functions
)


class Verdict(enum.Enum):
    OK = "ok"
    QUIRK = "quirk"  # fails, as its dialect says
    SKIPPED = "skipped"  # the database has no such thing
    UNCHECKED = "unchecked"  # nobody knows
    FAILED = "FAILED"


@dataclass(frozen=True)
class Finding:
    """What came of one check; ``message`` is the reason of all but ``OK``."""

    check: Check
    verdict: Verdict
    message: str = ""
    seconds: float = 0.0


def run(
    check: Check,
    driver: Driver,
    properties: Mapping[str, str],
    dialect: Dialect,
    seconds: float = TIME_LIMIT,
) -> Finding:
    """Run one check, and clean up behind it. Raises nothing that a driver could cause."""
    began = time.monotonic()
    finding = _judged(check, Subject(driver, properties, dialect), seconds)
    took, quirk = time.monotonic() - began, dialect.quirks.get(check.name)
    if quirk is None or finding.verdict in (Verdict.SKIPPED, Verdict.UNCHECKED):
        return replace(finding, seconds=took)
    if finding.verdict is Verdict.FAILED:
        return Finding(check, Verdict.QUIRK, quirk, took)
    gone = f"it passes, and so is no quirk any more; remove it from the dialect: {quirk}"
    return Finding(check, Verdict.FAILED, gone, took)


def _judged(check: Check, subject: Subject, seconds: float) -> Finding:
    call = Call(lambda: _check_and_close(check, subject))
    if not call.ended(seconds):
        Call(lambda: _interrupt_all(subject, call))
        subject.left_behind = not call.ended(GRACE)
        return _failed(check, subject, f"it had not ended after {seconds:g} s")
    try:
        call.outcome()
    except Unchecked as exc:
        return Finding(check, Verdict.UNCHECKED, str(exc))
    except Skipped as exc:
        return Finding(check, Verdict.SKIPPED, str(exc))
    except Failed as exc:
        return _failed(check, subject, _with_notes(str(exc), exc))
    except NotebookError as exc:
        return _failed(check, subject, _with_notes(described(exc), exc))
    except Exception as exc:  # noqa: BLE001  # the driver's bug, and the finding says so
        place = traceback.extract_tb(exc.__traceback__)[-1]
        bug = f"not a NotebookError, but {exc!r}, in {place.filename}, line {place.lineno}"
        return _failed(check, subject, _with_notes(bug, exc))
    return Finding(check, Verdict.OK)


def _check_and_close(check: Check, subject: Subject) -> None:
    """What the check found is what counts; what cleaning up found is a note to it."""
    try:
        check.function(subject)
    except Exception as exc:
        try:
            subject.close()
        except (Failed, NotebookError) as also:
            exc.add_note(str(also))
        raise
    subject.close()


def _with_notes(message: str, exc: Exception) -> str:
    return "; ".join([message, *getattr(exc, "__notes__", [])])


def _failed(check: Check, subject: Subject, message: str) -> Finding:
    if subject.left_behind:
        message += "; a thread is left behind that cannot be stopped"
        if not Call(subject.successor().close).ended(GRACE):
            message += f", and perhaps tables that begin with {subject.prefix}"
    return Finding(check, Verdict.FAILED, message)


def _interrupt_all(subject: Subject, call: Call[None]) -> None:
    deadline = time.monotonic() + GRACE
    while not call.ended(BETWEEN) and time.monotonic() < deadline:
        for connection in subject.connections.copy():
            if isinstance(connection, SupportsInterrupt):
                connection.interrupt()
