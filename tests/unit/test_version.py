"""The version names the commit that is checked out, in whatever form git keeps it."""

from __future__ import annotations

from pathlib import Path

from ioc.values.version import checked_out_commit, described_version

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_branch_is_followed(tmp_path: Path) -> None:
    (tmp_path / ".git/refs/heads").mkdir(parents=True)
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git/refs/heads/main").write_text(f"{COMMIT}\n")
    assert checked_out_commit(tmp_path) == COMMIT


def test_a_packed_branch_is_found(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git/packed-refs").write_text(
        f"# pack-refs\n{'f' * 40} refs/heads/x\n{COMMIT} refs/heads/main\n"
    )
    assert checked_out_commit(tmp_path) == COMMIT


def test_a_second_working_tree_has_its_own_head(tmp_path: Path) -> None:
    main, tree = tmp_path / "main/.git", tmp_path / "tree"
    (main / "worktrees/tree").mkdir(parents=True)
    (main / "refs/heads").mkdir(parents=True)
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {main}/worktrees/tree\n")
    (main / "worktrees/tree/HEAD").write_text("ref: refs/heads/work\n")
    (main / "worktrees/tree/commondir").write_text("../..\n")
    (main / "refs/heads/work").write_text(f"{COMMIT}\n")
    assert checked_out_commit(tree) == COMMIT


def test_a_commit_without_a_branch_is_itself(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text(f"{COMMIT}\n")
    assert checked_out_commit(tmp_path) == COMMIT


def test_no_working_tree_has_no_commit(tmp_path: Path) -> None:
    assert checked_out_commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/unborn\n")
    assert checked_out_commit(tmp_path) == ""


def test_the_version_fits_into_a_string_record() -> None:
    assert 1 <= len(described_version()) <= 39
