"""Compiled kernels, with a progress bar while they are made."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mimir_ingest.kernels.warm import is_cold, modules, needed_at_start, warm


def prepare_kernels(*, show: bool) -> None:
    """Compile the kernels if there is something to compile; a command then loads those that it needs."""
    if is_cold():
        warm_kernels(show=show)


def warm_kernels(*, show: bool, everything: bool = False) -> int:
    """Compile the kernels needed at start, or all; or load them from the cache; with a progress bar on stderr.

    Returns how many modules.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not show, transient=not show) as progress:
        task = progress.add_task("compiling kernels", total=None)

        def on_module(name: str, done: int, total: int) -> None:
            label = f"compiling kernels: {name} is done" if done < total else "kernels ready"
            progress.update(task, completed=done, total=total, description=f"{label:<44}")

        return warm(on_module, names=modules() if everything else needed_at_start())
