"""The page that lists the faults names tests that there are, for every fault or a reason for none."""

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parent / "README.md"
TESTS = Path(__file__).parents[1]
N_FAULTS = 58


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_fault_has_a_test_or_a_reason():
    assert [int(row[0]) for row in rows()] == list(range(1, N_FAULTS + 1))
    for _, fault, expected, tests in rows():
        assert fault and (tests or expected.startswith("not applicable"))


def test_the_tests_it_names_are_there():
    found = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    named = {name for *_, tests in rows() for name in re.findall(r"`(test_\w+)`", tests)}
    assert named - found == set() and len(named) > 60
