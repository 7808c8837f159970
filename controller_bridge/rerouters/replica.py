"""Some columns of somebody else's OVSDB database, as they are now: look, change, wait until they are as wanted.

The protocol runs in ovsdbapp's connection thread; nothing blocks the event loop, and nobody polls: each change wakes who waits.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ovs.db.idl import Idl, SchemaHelper
from ovs.jsonrpc import Connection as Rpc
from ovs.jsonrpc import Message
from ovs.poller import Poller
from ovs.stream import Stream
from ovsdbapp.backend.ovs_idl.connection import Connection

from vmnet.errors import ConfigError, RefusedError, UnavailableError, WaitTimeoutError
from vmnet.store.job import Db, Job
from vmnet.store.link import settle

T = TypeVar("T")
Tables = Mapping[str, Sequence[str]]
_BACKOFF_MIN_MS, _BACKOFF_MAX_MS = 20, 1000
_PROBE_MS = 2000
_SCHEMA_S = 2.0


class Replica:
    """Of one database; :meth:`open` makes one. ``name``: how messages call it."""

    def __init__(self, name: str, idl: Any, limit_s: float) -> None:
        self.name = name
        self._idl, self._limit_s = idl, limit_s
        self._loop = asyncio.get_running_loop()
        self._change: asyncio.Future[None] = self._loop.create_future()
        self._pending: set[asyncio.Future[Any]] = set()
        self._closed = False
        idl.notify = lambda *_: self._loop.call_soon_threadsafe(self._wake)
        self._connection = Connection(idl, limit_s)
        # The queue ovsdbapp makes holds one entry and blocks its caller for the rest: not in an event loop.
        self._connection.txns.maxsize = 0

    @classmethod
    async def open(cls, name: str, remote: str, database: str, tables: Tables, limit_s: float) -> Replica:
        """UnavailableError if no server answers, RefusedError if its schema lacks a column of ``tables``."""
        name = f"{name} at {remote}"
        schema = await asyncio.to_thread(_schema, name, remote, database)
        made = cls(name, _idl(name, remote, schema, tables), limit_s)
        try:
            await asyncio.to_thread(made._connection.start)
        except Exception as failure:  # ovsdbapp's own, of its time limit
            made._idl.close()
            raise _unavailable(name, f"no contents within {limit_s:g} s") from failure
        return made

    async def run(self, work: Callable[[Db], T]) -> T:
        """``work`` in the connection's thread; what it changed is committed. It may be run again on newer contents.

        UnavailableError if the server is away; WaitTimeoutError if it did not confirm: the change may yet be made."""
        if self._closed:
            raise UnavailableError(f"{self.name} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

        def deliver(outcome: Any) -> None:
            self._loop.call_soon_threadsafe(settle, future, outcome)

        self._connection.queue_txn(Job(self._idl, self.name, self._limit_s, work, deliver))
        try:
            return await future
        except WaitTimeoutError as late:
            if self._idl._session.is_connected():
                raise
            raise UnavailableError(late.message, late.hint) from late

    async def until(self, missing: Callable[[Db], str], hint: str = "") -> None:
        """Until ``missing`` says "". WaitTimeoutError, with what it said last, after the limit."""
        deadline = self._loop.time() + self._limit_s
        while True:
            change = self._change  # before the look: a change behind it is not overlooked
            lacks = await self.run(missing)
            if not lacks:
                return
            await asyncio.wait({change}, timeout=max(0.0, deadline - self._loop.time()))
            if self._loop.time() >= deadline:
                raise WaitTimeoutError(f"within {self._limit_s:g} s {lacks}", hint)

    def _wake(self) -> None:
        self._change.set_result(None)
        self._change = self._loop.create_future()

    async def close(self) -> None:
        """What was asked for ends first; each has its limit."""
        if self._closed:
            return
        self._closed = True
        if self._pending:
            await asyncio.wait(self._pending)
        await asyncio.to_thread(self._connection.stop, self._limit_s)


def _unavailable(name: str, why: str) -> UnavailableError:
    return UnavailableError(f"{name}: {why}", "see that its server runs and can be reached from here")


def _idl(name: str, remote: str, schema: dict[str, Any], tables: Tables) -> Any:
    for table, columns in tables.items():
        known = schema.get("tables", {}).get(table, {}).get("columns", {})
        lacking = [column for column in columns if column not in known]
        if lacking:
            raise RefusedError(
                f"{name} has no column {table}.{lacking[0]} (schema {schema.get('version')})",
                "upgrade OVN: 22.06 has it",
            )
    helper = SchemaHelper(schema_json=schema)
    for table, columns in tables.items():
        helper.register_columns(table, list(columns))
    idl = Idl(remote, helper, probe_interval=_PROBE_MS, leader_only=True)
    # There is no public way: Idl hides its session, and Reconnect.set_backoff() rounds up to a second since ovs 2.17.
    pace = idl._session.reconnect
    pace.min_backoff, pace.max_backoff = _BACKOFF_MIN_MS, _BACKOFF_MAX_MS
    return idl


def _schema(name: str, remote: str, database: str) -> dict[str, Any]:
    """Of the first member that answers. Blocks, two seconds a member at most: ovsdbapp's own would wait for ever."""
    failures = []
    for one in remote.split(","):
        try:
            return _ask(one, database)
        except OSError as failure:
            failures.append(f"{one}: {failure.strerror}")
    raise _unavailable(name, "; ".join(failures))


def _ask(remote: str, database: str) -> dict[str, Any]:
    deadline = time.monotonic() + _SCHEMA_S
    error, stream = Stream.open_block(Stream.open(remote), int(_SCHEMA_S * 1000))
    _check(error)
    rpc = Rpc(stream)
    try:
        _check(rpc.send(Message.create_request("get_schema", [database])))
        while True:
            rpc.run()
            error, reply = rpc.recv()
            if error != errno.EAGAIN:
                break
            _wait(rpc, deadline)
        _check(error)
    finally:
        rpc.close()
    if reply.error or not isinstance(reply.result, dict):
        raise OSError(errno.EPROTO, f"it has no database {database}")
    found: dict[str, Any] = reply.result
    return found


def _wait(rpc: Any, deadline: float) -> None:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise OSError(errno.ETIMEDOUT, "no answer")
    poller = Poller()
    rpc.wait(poller)
    rpc.recv_wait(poller)
    poller.timer_wait(max(1, int(remaining * 1000)))
    poller.block()


def _check(error: int) -> None:
    """python-ovs gives errno values, and EOF as -1."""
    if error:
        raise OSError(error, os.strerror(error) if error > 0 else "it hangs up")


def use_tls(ca: str, certificate: str, key: str) -> None:
    """Of the whole process: python-ovs keeps one set of files. ConfigError if one is not there."""
    for path in (ca, certificate, key):
        if not Path(path).is_file():
            raise ConfigError(
                f"no TLS file {path}", "make it with `vmnet pki init`, or correct [rerouter.settings] tls_*"
            )
    Stream.ssl_set_ca_cert_file(ca)
    Stream.ssl_set_certificate_file(certificate)
    Stream.ssl_set_private_key_file(key)
