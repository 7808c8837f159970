"""Follows a how-to: takes the code blocks of a Markdown page, in order, and runs them on hosts.

A block's info string says where: "sh" on every host, "sh a" on host a, "sh a ssh" on host a if the part "ssh" is followed,
"sh update" on every host if the part "update" is followed, "toml a /etc/x" is the content of a file on host a.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

_BLOCK = re.compile(r"^```(\S+)[ \t]*([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """Lines for ``hosts`` under ``heading``. ``part`` ("" if always followed) is an alternative or an appendix of the page.

    ``path``: the text is the content of this file; "" if it is typed.
    """

    heading: str
    hosts: tuple[str, ...]
    part: str
    text: str
    path: str = ""

    @property
    def commands(self) -> tuple[str, ...]:
        """What is typed, a command each; a line that ends with a backslash goes on in the next."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return tuple(line.strip() for line in joined.splitlines() if line.strip())


def steps(text: str, hosts: Sequence[str]) -> Iterator[Step]:
    """The page's blocks in order. Raises ValueError for an info string that means nothing."""
    for match in _BLOCK.finditer(text):
        language, info, body = match[1], match[2].split(), match[3]
        heading = [found[1] for found in _HEADING.finditer(text, 0, match.start())][-1]
        where = tuple(hosts)
        if info and info[0] in hosts:
            where = (info.pop(0),)
        if language == "sh" and len(info) <= 1:
            yield Step(heading, where, info[0] if info else "", body)
        elif language == "toml" and len(info) == 1 and info[0].startswith("/"):
            yield Step(heading, where, "", body, info[0])
        else:
            raise ValueError(
                f"block under {heading!r}: {match[0].splitlines()[0]!r} says neither host nor part"
            )


def typed(argv: Sequence[str], limit_s: float) -> tuple[int, str]:
    """Exit code of a program without input, and what it printed, errors among the rest. TimeoutExpired after ``limit_s``."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
    )
    return done.returncode, done.stdout


class HowToError(AssertionError):
    """A command of the page failed."""


Run = Callable[[str, str], tuple[int, str]]
"""Runs a command line on a host, as root in its home folder: exit code and output."""


def follow(
    page: Sequence[Step],
    run: Run,
    *,
    parts: Collection[str] = (),
    replace: Mapping[str, str] | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Run the steps in order, each on all its hosts at once. ``replace``: placeholders of the page, as "REPOSITORY".

    ``run`` is called on threads. Raises HowToError, with the command's output, for the first host on which a command fails.
    """
    for step in page:
        if step.part and step.part not in parts:
            continue
        log(f"## {step.heading}")
        with ThreadPoolExecutor(len(step.hosts)) as pool:
            ended = [pool.submit(_on_host, step, host, run, replace or {}, log) for host in step.hosts]
        for future in ended:
            future.result()


def _on_host(step: Step, host: str, run: Run, replace: Mapping[str, str], log: Callable[[str], None]) -> None:
    for command in _commands(step):
        for word, value in replace.items():
            command = command.replace(word, value)
        code, output = run(host, command)
        log("\n".join([f"{host}# {command}", *([output.rstrip()] if output.strip() else [])]))
        if code:
            raise HowToError(f"{step.heading}: {command!r} on {host} ended with {code}:\n{output}")


def _commands(step: Step) -> tuple[str, ...]:
    if not step.path:
        return step.commands
    return (f"printf %s {shlex.quote(step.text)} > {shlex.quote(step.path)}",)
