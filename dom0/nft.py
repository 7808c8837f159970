"""nft(8): the rules of this host's nftables, read and changed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

_ANSWER_S = 5.0


@dataclass(frozen=True)
class Said:
    """``error``: one line; "" if nft did as told."""

    text: str = ""
    error: str = ""


async def run(*arguments: str, text: str = "") -> Said:
    """``text``: for its standard input. Takes up to 5 s."""
    try:
        child = await asyncio.create_subprocess_exec(
            "nft", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        return Said(error=f"nft cannot be run ({error.strerror}): install the package nftables")
    try:
        output, complaint = await asyncio.wait_for(child.communicate(text.encode()), _ANSWER_S)
    except TimeoutError:
        return Said(error=f"nft gave no answer within {_ANSWER_S:g} s")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines()
        return Said(error=f"nft: {lines[0][-300:] if lines else f'exit status {child.returncode}'}")
    return Said(output.decode(errors="replace"))
