"""The list of faults speaks of tests that exist."""

import ast
import re
from pathlib import Path

import tests.faults

TESTS = Path(tests.faults.__file__).parents[1]


def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}


def test_every_fault_has_a_test():
    lines = re.findall(r"^ ?(\d+) (.+)$", tests.faults.__doc__, re.MULTILINE)
    assert [int(number) for number, _ in lines] == list(range(1, 24))
    for number, line in lines:
        places = re.findall(r"([\w/]+\.py)(?:::(\w+))?", line)
        assert places
        for path, name in places:
            assert not name or name in functions(TESTS / path), f"{number}: {path}::{name}"
            if path.startswith("faults/"):
                text = (TESTS / path).read_text()
                named = re.findall(r"Faults? ([\d, and]+)", text)
                assert any(number in re.findall(r"\d+", n) for n in named), f"{number}: {path}"
