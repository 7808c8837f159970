"""One piece of work on the replica, run in the connection's thread: look, change, commit, retry, or say why
not.

``work(db)`` sees the whole database as it is now and makes its changes through ``db``; it may be run again,
on newer contents, when the transaction did not go through, so it must be repeatable. ``db.attempt`` counts
from 0.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vmnet.errors import RefusedError, UnavailableError, VmnetError, WaitTimeoutError

LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Db:
    """The replica's tables, and the transaction to change them in."""

    idl: Any
    txn: Any
    attempt: int
    changed: bool = False

    def rows(self, table: str) -> list[Any]:
        return list(self.idl.tables[table].rows.values())

    def find(self, table: str, index: str, **columns: Any) -> list[Any]:
        """Rows by one of the indexes that ``link`` made."""
        rows = self.idl.tables[table].rows
        key = rows.IndexEntry(**columns)
        return list(rows.indexes[index].irange(key, key))

    def insert(self, table: str, **columns: Any) -> Any:
        """A new row; raises VmnetError when a column does not take its value."""
        schema = self.idl.tables[table]
        _check(schema, columns)
        row = self.txn.insert(schema)
        self.changed = True
        for name, value in columns.items():
            setattr(row, name, value)
        return row

    def delete(self, row: Any) -> None:
        self.changed = True
        row.delete()

    def set(self, row: Any, **columns: Any) -> None:
        """Write only what differs: the server's log and every replica get just that."""
        _check(row._table, columns)
        for name, value in columns.items():
            if getattr(row, name) != value:
                self.changed = True
                setattr(row, name, value)

    def expect(self, table: str, where: list[Any], **columns: Any) -> None:
        """Let the transaction fail (and the work run again) unless exactly one row, with these values,
        matches ``where`` after all changes (RFC 7047 section 5.2.6, "wait")."""
        self.txn.add_op(
            {
                "op": "wait",
                "timeout": 0,
                "table": table,
                "where": where,
                "until": "==",
                "columns": list(columns),
                "rows": [columns],
            }
        )


def _check(table: Any, columns: dict[str, Any]) -> None:
    """python-ovs only logs a value of the wrong type and leaves the column as it was: a lost write."""
    from ovs.db.data import Datum

    for name, value in columns.items():
        try:
            Datum.from_python(table.columns[name].type, value, lambda plain: plain)
        except Exception as failure:  # of many classes
            raise VmnetError(f"{table.name}.{name} does not take {value!r}: {failure}") from failure


class Job(Generic[T]):
    """What ovsdbapp's Connection calls a transaction: it calls ``do_commit`` in its thread, then
    ``results.put``. ``server``: how messages name it."""

    commands = ()

    def __init__(
        self, idl: Any, server: str, timeout_s: float, work: Callable[[Db], T], deliver: Callable[[Any], None]
    ) -> None:
        self.results = self
        self.timeout = timeout_s
        self._idl = idl
        self._server = server
        self._deadline = time.monotonic() + timeout_s
        self._work = work
        self._deliver = deliver

    def put(self, _result: object) -> None:
        """Part of what Connection expects; the outcome went to ``deliver`` already."""

    def do_commit(self) -> None:
        try:
            outcome: Any = self._run()
        except Exception as failure:
            outcome = failure
        self._deliver(outcome)

    def _run(self) -> T:
        from ovs.db.idl import Transaction

        self._idl.run()  # a connection that has broken must not pass for a good one
        attempt = 0
        while True:
            self._pump(self._usable, "does not answer")
            seqno = self._idl.change_seqno
            db = Db(self._idl, Transaction(self._idl), attempt)
            try:
                result = self._work(db)
            except BaseException:
                db.txn.abort()
                raise
            if self._commit(db, seqno):
                return result
            attempt += 1
            self._pump(lambda seen=seqno: self._idl.change_seqno != seen, "is busy")  # type: ignore[misc]

    def _usable(self) -> bool:
        idl = self._idl
        return idl.state == idl.IDL_S_MONITORING and (idl.lock_name is None or idl.has_lock)

    def _commit(self, db: Db, seqno: int) -> bool:
        """True: committed, on disk. False: try again on contents newer than ``seqno``."""
        txn = db.txn
        if not db.changed:
            txn.abort()
            return True
        txn.add_op({"op": "commit", "durable": True})  # RFC 7047 section 5.2.7: answered after fsync
        try:
            self._pump(
                lambda: txn.commit() != txn.INCOMPLETE, "did not confirm a change, which may yet be made"
            )
        except WaitTimeoutError:
            txn.abort()
            raise
        status = txn.commit()
        if status in (txn.SUCCESS, txn.UNCHANGED):
            return True
        if status in (
            txn.TRY_AGAIN,
            txn.NOT_LOCKED,
        ):  # the lock comes again, as with a new connection, or never
            return False
        if "constraint violation" in txn.get_error() and self._idl.change_seqno != seqno:
            # An earlier call ran out of time, yet its rows have come in since we looked.
            return False
        raise refusal(txn.get_error(), self._server)

    def _pump(self, done: Callable[[], bool], complaint: str) -> None:
        """Run the replica's protocol until ``done``."""
        from ovs.poller import Poller

        while not done():
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise self._too_late(complaint)
            self._idl.run()
            if done():
                return
            poller = Poller()
            self._idl.wait(poller)
            poller.timer_wait(max(1, int(remaining * 1000)))
            poller.block()

    def _too_late(self, complaint: str) -> VmnetError:
        if self._idl.is_lock_contended and not self._idl.has_lock:
            return UnavailableError(
                f"another daemon is connected to {self._server} with this host's name",
                "each host needs a name of its own: [host] name",
            )
        return WaitTimeoutError(
            f"{self._server} {complaint} (waited {self.timeout:g} s)",
            "see that its server runs and can be reached",
        )


def refusal(text: str, server: str) -> VmnetError:
    """The error for a transaction that the server refused, from its own JSON words (RFC 7047 section 3.1)."""
    try:
        error = json.loads(text)
        kind, details = str(error.get("error", "")), str(error.get("details", ""))
    except (ValueError, AttributeError):
        kind, details = text, ""
    words = ": ".join(part for part in (kind, details) if part)
    if kind in ("I/O error", "resources exhausted"):
        return RefusedError(f"{server} cannot write: {words}", "make room on its disk")
    return UnavailableError(f"{server} refused a change: {words}")
