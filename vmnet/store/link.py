"""The connection to an OVSDB server or cluster: a replica in memory, kept by ovsdbapp's connection thread.

Each call is queued for that thread as a ``Job`` and comes back as an asyncio future. Nothing blocks the event
loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from vmnet.errors import UnavailableError, WaitTimeoutError
from vmnet.store import schema
from vmnet.store.diagnose import diagnose
from vmnet.store.job import Db, Job
from vmnet.store.settings import StoreSettings

LOG = logging.getLogger(__name__)
T = TypeVar("T")

# ms. The default (1 s, growing to 8 s) keeps a client out for 7-16 s after a cluster's leader died.
BACKOFF_MIN, BACKOFF_MAX = 20, 100
PROBE_MS = 2000  # how soon a silent remote is asked whether it lives; the same again, and it is given up
INDEXES: dict[str, dict[str, tuple[str, ...]]] = {
    "Host": {"name": ("name",)},
    "Binding": {"vm": ("vm",)},
    "Migration": {"migration": ("migration", "host")},
    "Journal": {"migration": ("migration",)},
}


class Link:
    """An open connection; ``open`` makes one."""

    def __init__(self, settings: StoreSettings, idl: Any, connection: Any) -> None:
        self._settings = settings
        self._idl = idl
        self._connection = connection
        self._pending: set[asyncio.Future[Any]] = set()
        self._closed = False

    @classmethod
    async def open(cls, settings: StoreSettings) -> Link:
        """Connect and fetch the contents. Raises WaitTimeoutError or UnavailableError naming the remote."""
        from ovsdbapp.backend.ovs_idl.connection import Connection

        idl = _replica(settings)
        connection = Connection(idl, settings.timeout_s)
        # The queue ovsdbapp makes holds one entry and blocks its caller for the rest: not in an event loop.
        connection.txns.maxsize = 0
        try:
            await asyncio.to_thread(connection.start)
        except Exception as failure:  # ovsdbapp raises a bare Exception when its time is up
            idl.close()
            hint = await asyncio.to_thread(diagnose, settings)
            raise WaitTimeoutError(
                f"no connection to the store at {settings.remote} within {settings.timeout_s:g} s", hint
            ) from failure
        return cls(settings, idl, connection)

    async def run(self, work: Callable[[Db], T]) -> T:
        """Run ``work`` in the connection's thread and commit what it changed; returns its result.

        When the caller is cancelled, the change may be made all the same. Raises what ``work`` raises,
        WaitTimeoutError (the outcome is then unknown), RefusedError (disk full), UnavailableError.
        """
        if self._closed:
            raise UnavailableError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

        def deliver(outcome: Any) -> None:
            loop.call_soon_threadsafe(settle, future, outcome)

        settings = self._settings
        server = f"the store at {settings.remote}"
        self._connection.queue_txn(Job(self._idl, server, settings.timeout_s, work, deliver))
        return await future

    async def close(self) -> None:
        """Let queued calls end (each has its deadline), then end the connection."""
        if self._closed:
            return
        self._closed = True
        if self._pending:
            await asyncio.wait(self._pending, timeout=self._settings.timeout_s)
        stopped = await asyncio.to_thread(self._connection.stop, self._settings.timeout_s)
        if not stopped:
            LOG.warning("the connection to %s does not end", self._settings.remote)
        for future in self._pending:
            future.cancel()


def settle(future: asyncio.Future[Any], outcome: Any) -> None:
    """``outcome`` is the result, or the exception; nobody may wait any more."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _replica(settings: StoreSettings) -> Any:
    """An IDL of our schema: every host and binding, but migrations and journal of this host alone."""
    from ovs.db.idl import Idl, SchemaHelper

    if settings.uses_tls:
        _use_tls(settings)
    helper = SchemaHelper(schema_json=schema.load())
    helper.register_all()
    idl = Idl(settings.remote, helper, probe_interval=PROBE_MS, leader_only=True)
    if not settings.embedded:
        idl.set_lock(lock_name(settings.host))
    for table, indexes in INDEXES.items():
        for name, columns in indexes.items():
            idl.index_create(table, name).add_columns(*columns)
    idl.cond_change("Migration", [["host", "==", settings.host]])
    idl.cond_change("Journal", [["owner", "==", settings.host]])
    # There is no public way: Idl hides its session, and Reconnect.set_backoff() rounds up to a second since
    # ovs 2.17.
    pace = idl._session.reconnect
    pace.min_backoff, pace.max_backoff = BACKOFF_MIN, BACKOFF_MAX
    return idl


def lock_name(host: str) -> str:
    """An OVSDB lock (RFC 7047, 4.1.8) that a host's daemon holds as long as it is connected: no other is that host meanwhile."""
    return "vmnet_" + "".join(one if one.isalnum() and one.isascii() else f"_{ord(one):x}_" for one in host)


def _use_tls(settings: StoreSettings) -> None:
    """python-ovs keeps one set of TLS files a process."""
    from ovs.stream import Stream

    for path in (settings.tls_ca, settings.tls_certificate, settings.tls_key):
        if path is None or not path.is_file():
            raise UnavailableError(
                f"no TLS file {path} for the store", "make it with `vmnet pki init`, or set [tls]"
            )
    Stream.ssl_set_ca_cert_file(str(settings.tls_ca))
    Stream.ssl_set_certificate_file(str(settings.tls_certificate))
    Stream.ssl_set_private_key_file(str(settings.tls_key))
