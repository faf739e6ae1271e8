# SPDX-License-Identifier: Apache-2.0
"""One parent for all clients' processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import Processes


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()
