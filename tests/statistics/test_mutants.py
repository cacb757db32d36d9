"""The list of mutants still fits the package; trying them takes minutes, and is done by hand."""

import ast
import functools

import pytest

from tests.statistics.mutants import ROOT, mutated
from tests.statistics.mutations import MUTANTS
from tests.statistics.mutations.mutant import Mutant


@functools.cache
def functions_in(path):
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.name}")
def test_every_mutant_applies_and_its_test_is_there(mutant):
    text = mutated((ROOT / "genconv" / mutant.file).read_text(), mutant)
    ast.parse(text)
    path, name = mutant.test.split("::")
    assert name in functions_in(path)


def test_names_are_distinct():
    assert len({(m.file, m.name) for m in MUTANTS}) == len(MUTANTS)


def test_a_stale_mutant_is_refused():
    for text in ("", "old old"):
        with pytest.raises(ValueError, match="'old' is found"):
            mutated(text, Mutant("name", "file.py", "old", "new", "test"))
