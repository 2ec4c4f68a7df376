"""Which version this is: the package's number and, where it can be told, the commit it was made from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "std-daq-ioc"


def described_version() -> str:
    """Return e.g. ``0.1.0+g31e5f19``; of a source tree, the commit that is checked out there."""
    try:
        number = distribution(PACKAGE).version
    except PackageNotFoundError:
        number = "source tree"
    commit = _installed_commit() or checked_out_commit(Path(__file__).parents[2])
    return f"{number}+g{commit[:7]}" if commit else number


def _installed_commit() -> str:
    """Return the commit that pip took the package from; "" when it came otherwise."""
    try:
        origin = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return ""
    return str(origin.get("vcs_info", {}).get("commit_id", ""))


def checked_out_commit(tree: Path) -> str:
    """Return the commit of a git working tree, read from its files; "" when it is none.

    Not asked of the program git: it need not be there, and refuses a tree of another user.
    Source: gitrepository-layout(5).
    """
    try:
        folder = tree / ".git"
        if folder.is_file():  # of a second working tree, or a submodule
            folder = tree / folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        shared = folder / "commondir"
        common = folder / shared.read_text(encoding="utf-8").strip() if shared.exists() else folder
        if (common / name).is_file():
            return (common / name).read_text(encoding="utf-8").strip()
        for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
            if line.endswith(f" {name}"):
                return line.split()[0]
    except (OSError, ValueError):
        pass
    return ""
