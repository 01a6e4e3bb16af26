"""Settings that hold for every test."""

import numba
import pytest
from hypothesis import settings

# No deadline: how long an example takes says more about what else the machine does than about the code.
settings.register_profile("repository", deadline=None, print_blob=True)
settings.load_profile("repository")


def pytest_collection_modifyitems(items):
    """Leave out what takes minutes as plain Python."""
    if numba.config.DISABLE_JIT:
        skip = pytest.mark.skip(reason="takes minutes as plain Python")
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(skip)
