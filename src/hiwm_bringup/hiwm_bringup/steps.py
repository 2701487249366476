"""Steps of a longer job: headings, and other commands of the project run to their end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from hiwm_bringup.processes import child_setup, signal_group

_PATIENCE_S = (8.0, 3.0, 2.0)


class StepError(RuntimeError):
    """A step that failed; the text names the command."""


def heading(number: int, total: int, text: str) -> None:
    """Announce a step on stderr."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"\n{bold}[{number}/{total}] {text}{plain}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """A line of explanation on stderr."""
    print(f"      {text}", file=sys.stderr, flush=True)


def hiwm(words: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a command of ``hiwm`` in its own process, showing it so that the user can repeat it.

    Raises:
        StepError: it ended with an error.
        KeyboardInterrupt: Ctrl-C; the command and everything it started have been stopped.
    """
    note(f"$ hiwm {shlex.join(words)}")
    command = [sys.executable, "-m", "hiwm_bringup.cli", *words]
    process = subprocess.Popen(command, env=dict(env), start_new_session=True, preexec_fn=child_setup())
    try:
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    signal_group(process, signal.SIGKILL)
    if code != 0:
        raise StepError(f"'hiwm {shlex.join(words)}' ended with exit code {code}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, patience in zip((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), _PATIENCE_S, strict=True):
        signal_group(process, number)
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is not None:
            break
    signal_group(process, signal.SIGKILL)
