"""vmnet's own file for a Faucet, which its configuration includes: an ACL for each interface that names one of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from controller_bridge.rerouters import faucet_config
from controller_bridge.rerouters.faucet_acls import Entry, acl_name
from controller_bridge.rerouters.faucet_config import Fabric, Interface
from vmnet.errors import ConfigError, ExitCode, VmnetError

_NOBODY: Final = "00:00:00:00:00:00"
_HEAD: Final = "# vmnet's: where packets for VMs that move go. Written anew by every move; do not edit.\n"
_OWNER = re.compile(r"vmnet (\S+)")
_NAME = re.compile(r"vmnet-(.+)-(\d+)")


def written(entries: Iterable[Entry], fabric: Fabric, vid: int | None) -> str:
    """The file. The same entries give the same bytes. ConfigError if a tag is needed and ``vid`` is not known."""
    own: dict[str, list[Entry]] = {}
    for one in sorted(entries):
        own.setdefault(acl_name(one.datapath, one.in_port), []).append(one)
    lines = [_HEAD, "acls:\n"]
    for datapath, interfaces in sorted(fabric.datapaths.items()):
        for number, interface in sorted(interfaces.items()):
            name = acl_name(datapath, number)
            if name in interface.acls:
                lines.append(f"  {name}:\n")
                lines += [_rule(entry, interfaces, vid) for entry in own.pop(name, [])]
                # Faucet refuses an ACL without rules; and one that always matches the same fields leaves its tables as they are.
                lines.append(
                    f'  - rule: {{dl_dst: "{_NOBODY}"{_tag(interface, vid)}, actions: {{allow: 0}}}}\n'
                )
    if own:
        raise ConfigError(
            f"no interface has the ACL {min(own)}", "put back what was taken from Faucet's configuration"
        )
    if len(lines) == 2:
        raise ConfigError(
            "no interface has an ACL of vmnet's", "give each  acls_in: [vmnet-DATAPATH-NUMBER, ALLOWED]"
        )
    return "".join(lines)


def _rule(entry: Entry, interfaces: Mapping[int, Interface], vid: int | None) -> str:
    come, go = interfaces[entry.in_port], interfaces[entry.out_port]
    output = f"{_tagging(come, go, vid)}port: {entry.out_port}"
    return (
        f'  - rule: {{description: "vmnet {entry.move}", dl_dst: "{entry.mac}"{_tag(come, vid)}, '
        f"actions: {{output: {{{output}}}}}}}\n"
    )


def _tag(come: Interface, vid: int | None) -> str:
    """Switches pop a tag only where the match says that there is one (OpenFlow 1.3, 7.2.3.8)."""
    return f", vlan_vid: {vid}" if vid is not None and come.tags(vid) else ""


def _tagging(come: Interface, go: Interface, vid: int | None) -> str:
    if vid is None:
        if come.tagged or go.tagged or come.stack or go.stack:
            raise ConfigError(
                f"interfaces {come.name} and {go.name} carry tags: of which VLAN are the VMs?",
                'add  vlan = "NAME"  to [rerouter.settings]',
            )
        return ""
    if come.tags(vid) == go.tags(vid):
        return ""
    return "pop_vlans: 1, " if come.tags(vid) else f"vlan_vid: {vid}, "


def entries_in(acls: Mapping[str, Any]) -> Iterator[Entry]:
    """Of the table ``acls`` of our own file, as :func:`written` made it. ConfigError if somebody else did."""
    for name, rules in acls.items():
        place = _NAME.fullmatch(name)
        try:
            for one in rules:
                rule = one["rule"]
                if rule["dl_dst"] == _NOBODY:
                    continue
                owner = _OWNER.fullmatch(rule["description"])
                assert place and owner
                port = int(rule["actions"]["output"]["port"])
                yield Entry(place[1], int(place[2]), rule["dl_dst"], port, owner[1])
        except (AssertionError, KeyError, TypeError, ValueError):
            raise ConfigError(
                f"vmnet's file for Faucet: {name} is not as vmnet writes it", "move the file away"
            ) from None


def empty(config: Path, vlan: str) -> str:
    """ConfigError. The file to be made may be included, and there, empty, already. ``vlan`` as in the settings."""

    def read(path: Path) -> str:
        text = path.read_text("utf-8") if path.exists() or path == config else ""
        return text if text.strip() or path == config else "acls: {}\n"

    fabric = faucet_config.load(config, read)
    return written((), fabric, fabric.vid(vlan) if vlan else None)


def main() -> int:
    """``python -m controller_bridge.rerouters.faucet_file FAUCET.YAML [VLAN]``: the file with nothing in it, to begin with."""
    if len(sys.argv) not in (2, 3):
        print("usage: python -m controller_bridge.rerouters.faucet_file FAUCET.YAML [VLAN]", file=sys.stderr)
        return ExitCode.USAGE
    try:
        sys.stdout.write(empty(Path(sys.argv[1]).resolve(), "".join(sys.argv[2:])))
    except VmnetError as error:
        print(error, file=sys.stderr)
        return error.code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
