"""The generated pages of the reference are what the code says today."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.docs.page import ROOT


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["states", "config", "cli"])
def test_a_generated_page_is_up_to_date(make_reference: ModuleType, name: str) -> None:
    page = ROOT / f"docs/reference/{name}.md"
    assert page.read_text(encoding="utf-8") == getattr(make_reference, f"{name}_page")(), (
        "run `make reference`"
    )
