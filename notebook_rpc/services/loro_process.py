"""The process in which shared documents live: ``python -m notebook_rpc.services.loro_process``.

Why not a thread: Loro keeps Python's lock while it works, a third of a second for 12 MB, which
nobody else may have to wait for; and some bytes that any client can send (values nested 200 000
deep, say) end the process that reads them. Here that costs the documents' cache, and no more:
``services/documents.py`` keeps what is needed to make them again.

It ends when its standard input does.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from loro import ExportMode, LoroDoc

from notebook_rpc.sansio.documents import HEAD, Answer, Ask, Taken, unpacked

if TYPE_CHECKING:
    from typing import BinaryIO

    from loro import ImportBlobMetadata


PENDING: Final = "it builds on changes that are not in this room"


class _Refused(Exception):
    """The document is as it was."""


class Shelf:
    """Documents by number. One that an operation may have spoiled is thrown away."""

    def __init__(self) -> None:
        self._documents: dict[int, LoroDoc] = {}

    def answer(self, ask: Ask, number: int, payload: bytes) -> tuple[Answer, bytes]:
        if ask is Ask.CLOSE:
            self._documents.pop(number, None)
            return Answer.DONE, b""
        if ask is not Ask.OPEN and number not in self._documents:
            return Answer.MISSING, b""
        try:
            return Answer.DONE, self._carry_out(ask, number, payload)
        except _Refused as exc:
            return Answer.REFUSED, str(exc).encode()
        # Loro's errors are of the class BaseException itself, and so are its panics, after which
        # a document is of no use.
        except BaseException as exc:  # noqa: BLE001
            self._documents.pop(number, None)
            return Answer.REFUSED, str(exc).encode()

    def _carry_out(self, ask: Ask, number: int, payload: bytes) -> bytes:
        match ask:
            case Ask.OPEN:
                self._documents.pop(number, None)
                document = LoroDoc()
                for blob in unpacked(payload):
                    document.import_(blob)
                self._documents[number] = document
                return b""
            case Ask.UPDATE:
                return self._update(number, payload).byte
            case Ask.SEED:
                return self._seed(number, payload)
            case Ask.EXPORT:
                return _exported(self._documents[number])
        raise AssertionError(ask)

    def _update(self, number: int, update: bytes) -> Taken:
        document = self._documents[number]
        if not document.oplog_vv.includes_vv(_about(update).partial_start_vv):
            raise _Refused(PENDING)
        return self._take(number, update)

    def _seed(self, number: int, snapshot: bytes) -> bytes:
        document = self._documents[number]
        ours, theirs = document.oplog_vv, _about(snapshot).partial_end_vv
        if not ours.to_spans().is_empty:
            # A client of the same document may have more of it: it was changed while nobody
            # could be told. Refused, its updates would all be PENDING for ever after.
            related = not ours.intersection(theirs).to_spans().is_empty
            if not related or ours.includes_vv(theirs):
                return Taken.NO.byte
        if self._take(number, snapshot) is Taken.KNOWN:
            return Taken.KNOWN.byte
        return Taken.NEW.byte + document.export(ExportMode.Updates(ours))

    def _take(self, number: int, blob: bytes) -> Taken:
        status = self._documents[number].import_(blob)
        if status.pending is not None:  # it waits inside the document, where no snapshot has it
            del self._documents[number]
            raise _Refused(PENDING)
        return Taken.KNOWN if status.success.is_empty else Taken.NEW


def _about(blob: bytes) -> ImportBlobMetadata:
    """Most of what is no blob at all is found out here, where it can spoil no document."""
    try:
        return LoroDoc.decode_import_blob_meta(blob, check_checksum=True)
    except BaseException as exc:  # noqa: BLE001  # as above
        raise _Refused(str(exc)) from None


def _exported(document: LoroDoc) -> bytes:
    snapshot = document.export(ExportMode.Snapshot())
    # What one can import and export, another may still be unable to read.
    copy = LoroDoc()
    copy.import_(snapshot)
    copy.get_deep_value()
    return snapshot


def bound(memory: int) -> None:
    """Have the system refuse us more than *memory* bytes, where it can, and keep no image of our
    memory when something ends us."""
    try:
        import resource  # noqa: PLC0415  # POSIX only
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def serve(shelf: Shelf, requests: BinaryIO, answers: BinaryIO) -> None:
    while head := requests.read(HEAD.size):
        ask, number, length = HEAD.unpack(head)
        answer, body = shelf.answer(Ask(ask), number, requests.read(length))
        answers.write(HEAD.pack(answer, number, len(body)))
        answers.write(body)
        answers.flush()


if __name__ == "__main__":
    # A signal to the whole group, or from systemd, means the server, which has yet to save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    bound(int(sys.argv[1]))
    serve(Shelf(), sys.stdin.buffer, sys.stdout.buffer)
