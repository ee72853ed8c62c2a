"""What tests of training have in common: small problems of many shapes."""

import pytest


@pytest.fixture(autouse=True)
def _quick(quick_compilation: None) -> None:
    """Compile quickly, as most of the time is compilation; other folders compile as users do."""
