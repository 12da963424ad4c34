"""Each edge against the real server."""

import pytest

# Its comparisons fail as readably as those of the tests.
pytest.register_assert_rewrite("tests.integration.postgres_oracle")
