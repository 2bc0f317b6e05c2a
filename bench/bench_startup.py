"""What it costs to import Tallybook and to ask its command line for help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from side_by_side import medians, show, verdict

PYTHON = sys.executable
TALLYBOOK = str(Path(PYTHON).with_name("tallybook"))
COMMANDS = {
    "python -c pass": [PYTHON, "-c", "pass"],
    "python -c 'import tallybook'": [PYTHON, "-c", "import tallybook"],
    "python -c 'import typer'": [PYTHON, "-c", "import typer"],
    "tallybook --help": [TALLYBOOK, "--help"],
    "python -c 'import polars'": [PYTHON, "-c", "import polars"],
}


def runner(command: list[str]) -> Callable[[], object]:
    """Return a function that runs a command to its end."""
    return lambda: subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Print the medians, and the two ratios that the project promises."""
    seconds = medians({name: runner(command) for name, command in COMMANDS.items()}, rounds=21)
    bare, imported, typer, asked, _ = seconds.values()
    rows = [
        [name, f"{value * 1e3:.1f}", f"{(value - bare) * 1e3:+.1f}", f"{value / bare:.2f}"]
        for name, value in seconds.items()
    ]
    show("Start-up, medians of 21 runs each", ["command", "ms", "over bare", "ratio"], rows)
    show(
        "Promises",
        ["", "measured", "goal"],
        [
            [
                "import tallybook, ms beyond bare Python",
                f"{(imported - bare) * 1e3:.1f}",
                verdict((imported - bare) * 1e3, 50),
            ],
            [
                "tallybook --help / import typer",
                f"{asked / typer:.2f}",
                verdict(asked / typer, 2),
            ],
        ],
    )


if __name__ == "__main__":
    main()
