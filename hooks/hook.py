#!/bin/sh
""":"
# vmnet-hook: not installed; `vmnet hooks install` makes a copy with the settings in it.
# sh and Python in one file. The sh part lets only a deliberate refusal fail a step: not a missing or broken Python,
# and nothing at all at `reconnect`, where a failing hook would kill the guest.
PYTHON=/usr/bin/python3
MARKS=/run/vmnet
# Where libvirt need not wait for us. Of QEMU's steps some neither change nor refuse anything, and are no barrier; nor are the
# others for a VM of which the source's daemon has told ours (dom0/marks.py).
marked() { [ -n "$MARKS" ] && [ -f "$MARKS/$1" ]; }
# A VM that runs at another host is not started here as well: that is the one start for which libvirt waits.
ELSEWHERE=/run/vmnet/elsewhere
niceness=
case "$0 $2 $3" in *libxl*) ;;
*" migrate begin") marked "expected/$1" && exit 0 ;;
*" prepare begin") marked "expected/$1" && exit 0; [ -f "$ELSEWHERE/$1" ] || niceness=19 ;;
*" start begin") niceness=0 ;;
*" started begin") marked "prepared/$1" && niceness=0 ;;
*" stopped end"|*" release end") niceness=19 ;;
esac
if [ -n "$niceness" ]; then
    exec 3<&0
    nice -n "$niceness" "$PYTHON" -IS "$0" "$@" <&3 3<&- >/dev/null 2>&1 &
    exit 0
fi
"$PYTHON" -IS "$0" "$@"
[ "$?" = 3 ] && [ "$2" != reconnect ] && exit 1
exit 0
"""

# libvirt waits for us: built-in modules only, one deadline for everything, and never a call to libvirt.
# Not even os, which takes a millisecond of our ten, nor contextlib.
# ruff: noqa: SIM105
# Who calls: https://libvirt.org/hooks.html. What we say to the daemon: docs/architecture.md, "Control socket".
import _signal  # type: ignore[import-not-found]
import _socket
import posix
import sys
import time

SOCKET = "/run/vmnet/dom0d.sock"
WHEN_DAEMON_AWAY = "continue"
TIMEOUT_MS = 10000

MAX_XML = 1048576
MAX_FIELD = 1024
REFUSED = 3  # the sh part makes it a failure
# Where a refusal leaves the VM running at the source and nothing behind. Not libxl's `migrate`: if that fails, the
# source's libvirtd keeps the VM's job lock.
CLEAN = {
    "qemu": (("migrate", "begin"), ("prepare", "begin")),
    "libxl": (("prepare", "begin"), ("start", "begin")),
}
NOTE_S = 60


class Away(Exception):
    """The daemon gave no usable answer."""


class Refusal(Exception):
    """The daemon said no; the text is why."""


def main(argv: "list[str]") -> int:
    """Run one hook call; returns 0, or REFUSED at a step where that is clean."""
    driver = "libxl" if "libxl" in argv[0] else "qemu"
    if len(argv) != 5 or max(map(len, argv[1:])) > MAX_FIELD:
        log("called with arguments that libvirt does not give")
        return 0
    name, op, subop = argv[1:4]
    try:
        xml = within_deadline(driver, argv[1:])
    except Refusal as error:
        return refuse(driver, name, op, subop, str(error))
    except (Away, OSError, ValueError) as error:
        return away(driver, name, op, subop, str(error))
    while xml and op == "migrate":
        xml = xml[posix.write(1, xml) :]
    return 0


def within_deadline(driver: str, words: "list[str]") -> bytes:
    def late(*_: object) -> None:
        raise Away(f"the daemon did not answer within {TIMEOUT_MS} ms")

    _signal.signal(_signal.SIGALRM, late)
    _signal.setitimer(_signal.ITIMER_REAL, TIMEOUT_MS / 1000)
    try:
        return ask(driver, words, read_all(0, MAX_XML))
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)


def ask(driver: str, words: "list[str]", xml: bytes) -> bytes:
    """What the daemon makes of a call: new XML, or nothing. Raises Refusal, Away or OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(SOCKET)
    except OSError as error:
        raise Away(f"no daemon answers on {SOCKET} ({error.strerror})") from None
    header = f"HOOK 1 {driver} {' '.join(map(quote, words))} {len(xml)}\n"
    sock.sendall(header.encode() + xml)
    head, _, body = read_all(sock.fileno(), MAX_XML + 4096).partition(b"\n")
    verb, _, rest = head.partition(b" ")
    if verb == b"REFUSE":
        raise Refusal(rest.decode("utf-8", "replace"))
    if verb != b"OK" or rest != b"%d" % len(body):
        raise Away("the daemon gave no whole answer")
    return body


def read_all(descriptor: int, most: int) -> bytes:
    data = b""
    while True:
        chunk = posix.read(descriptor, 65536)
        data += chunk
        if len(data) > most:
            raise Away(f"more than {most} bytes")
        if not chunk:
            return data


def refuse(driver: str, name: str, op: str, subop: str, why: str) -> int:
    clean = (op, subop) in CLEAN[driver]
    late = "" if clean else " too late, it goes on"
    log(f"{name} {op} {subop}: refused{late}: {why}")
    return REFUSED if clean else 0


def away(driver: str, name: str, op: str, subop: str, why: str) -> int:
    """Continue or refuse, as installed. Only migrations are refused: a VM starts also without the daemon.

    libxl's `prepare` cannot tell a migration from a start, so its `migrate` leaves a note for it.
    """
    note = f"{SOCKET.rpartition('/')[0]}/refuse-{quote(name)[:200]}"
    refusing = WHEN_DAEMON_AWAY == "refuse" and subop == "begin"
    if refusing and driver == "libxl" and op == "migrate":
        leave(note)
    elif refusing and (op == "migrate" or (driver == "libxl" and op == "prepare" and take(note))):
        return refuse(driver, name, op, subop, why + "; start it: systemctl start vmnet-dom0d")
    log(f"{name} {op} {subop}: {why}; it goes on without vmnet")
    return 0


def leave(note: str) -> None:
    try:
        try:
            posix.mkdir(note.rpartition("/")[0], 0o755)
        except FileExistsError:
            pass
        posix.close(posix.open(note, posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW, 0o600))
        posix.utime(note)
    except OSError as error:
        log(f"cannot leave {note}: {error.strerror}")


def take(note: str) -> bool:
    try:
        age = time.time() - posix.stat(note).st_mtime
        posix.unlink(note)
    except OSError:
        return False
    return age < NOTE_S


def quote(word: str) -> str:
    if word.isalnum() and word.isascii():
        return word
    return "".join(
        chr(byte) if byte < 128 and (chr(byte).isalnum() or byte in b"-._~") else f"%{byte:02X}"
        for byte in word.encode("utf-8", "surrogateescape")
    )


def log(text: str) -> None:
    """To syslog, and to libvirt, which shows the standard error of a hook that fails."""
    text = "vmnet: " + "".join(c if c.isprintable() else "?" for c in text[:2000])
    posix.write(2, text.encode("utf-8", "replace") + b"\n")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    try:
        sock.sendto(b"<28>vmnet-hook: " + text.encode("utf-8", "replace"), "/dev/log")  # daemon.warning
    except OSError:
        pass


if __name__ == "__main__":
    try:
        code = main(sys.argv)
    except BaseException as error:
        log(f"hook failed: {error!r}; it goes on without vmnet")
        code = 0
    posix._exit(code)  # nothing to tidy: skip what the interpreter would
