"""`import tallybook`: light, and every public name is there when it is asked for."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import tallybook


class TestLazyNames:
    """The names a program imports from the package itself."""

    @pytest.mark.parametrize("name", tallybook.__all__)
    def test_resolves(self, name):
        """Each name is the object of its module."""
        home = import_module(f"tallybook.{tallybook._HOMES[name]}")
        assert getattr(tallybook, name) is getattr(home, name)
        assert name in home.__all__

    def test_complete(self):
        """Every name has a home, every home has a name, and `dir` shows them."""
        assert sorted(tallybook._HOMES) == tallybook.__all__
        assert set(tallybook.__all__) <= set(dir(tallybook))

    def test_unknown_name(self):
        """A name that is not there is an ordinary AttributeError."""
        with pytest.raises(AttributeError, match="has no attribute 'proces_data'"):
            _ = tallybook.proces_data

    def test_import_is_light(self):
        """Importing the package imports no other one, not even its own modules."""
        code = "import sys; before = set(sys.modules); import tallybook; " + (
            "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} "
            "- set(sys.stdlib_module_names)), 'tallybook.types' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        )
        assert done.stdout.split() == ["tallybook", "False"]

    def test_version(self):
        """The version is that of the installed package."""
        assert tallybook.__version__ == version("tallybook")
