"""Why does a remote not serve us? Asked of ovsdb-client once a connection has failed, to give people a
cause."""

from __future__ import annotations

import subprocess

from vmnet.store import schema
from vmnet.store.settings import StoreSettings

ASK_S = 2


def diagnose(settings: StoreSettings) -> str:
    """One hint for all remotes; blocks for ``ASK_S`` seconds a remote at most."""
    remotes = settings.remotes or (settings.remote,)
    return "; ".join(f"{remote}: {_ask(settings, remote)}" for remote in remotes)


def _ask(settings: StoreSettings, remote: str) -> str:
    command = ["ovsdb-client", f"--timeout={ASK_S}", "-vsyslog:off", "-vconsole:off", *_tls(settings, remote)]
    try:
        done = subprocess.run(
            [*command, "get-schema-version", remote, schema.NAME],
            capture_output=True,
            text=True,
            timeout=ASK_S + 1,
            check=False,
        )
    except FileNotFoundError:
        return "see that its server runs"
    except subprocess.TimeoutExpired:
        return "no answer"
    return _verdict(done.returncode, done.stdout.strip(), done.stderr.strip())


def _verdict(status: int, answer: str, complaint: str) -> str:
    if status != 0:
        return complaint.splitlines()[-1].removeprefix("ovsdb-client: ") if complaint else "no answer"
    if answer != schema.version():
        return f"its schema is {answer}, ours {schema.version()}: upgrade it with `ovsdb-client convert`"
    return "it answers, but has no leader for us"


def _tls(settings: StoreSettings, remote: str) -> list[str]:
    if not remote.startswith("ssl:"):
        return []
    return [
        f"--ca-cert={settings.tls_ca}",
        f"--certificate={settings.tls_certificate}",
        f"--private-key={settings.tls_key}",
    ]
