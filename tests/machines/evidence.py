"""What is worth reading when a migration between machines went wrong: they are gone when the test has failed."""

import json

_LOGS = (
    "journalctl --no-pager -o short-precise -n 60 -u vmnet-dom0d; "
    "journalctl --no-pager -o short-precise -n 20 -k; journalctl --no-pager -o short-precise -n 10 -u libvirtd"
)


def show(place, row):
    """Prints the whole row, and the last lines of each host's daemons and kernel."""
    print(json.dumps(row.to_json()))
    for name in ("a", "b"):
        said = place.lab.host(name).run(["sh", "-c", _LOGS], check=False)
        print(f"--- host {name}\n{said.stdout}{said.stderr}")
