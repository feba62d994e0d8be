"""Every error a user can cause has one exit code, and there are no others."""

import inspect

import pytest

from ulmpipe import errors

CODES = {
    "UlmpipeError": 1,
    "ConfigError": 2,
    "SourceError": 1,
    "StoreError": 1,
    "VocabMismatchError": 1,
    "EngineMismatchError": 1,
    "OutputInUseError": 4,
}


def test_every_error_has_its_exit_code():
    found = {
        name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    }
    assert {name: getattr(kind, "exit_code", None) for name, kind in found.items()} == CODES


@pytest.mark.parametrize("name", CODES)
def test_errors_are_one_family_and_documented(name: str):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.UlmpipeError) and issubclass(kind, Exception)
    assert inspect.getdoc(kind) and str(kind("what was found")) == "what was found"
    assert name in (errors.__doc__ or "")


def test_exit_codes_are_those_of_the_contract():
    codes = (errors.DONE, errors.FAILED, errors.USAGE, errors.QUARANTINED, errors.IN_USE, errors.INTERRUPTED, errors.TERMINATED)  # fmt: skip
    assert codes == (0, 1, 2, 3, 4, 130, 143)
