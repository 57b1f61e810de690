"""Fixtures that the tests of several kinds of transport share."""

from __future__ import annotations

import pytest
from tls_peers import SIDES


@pytest.fixture(params=SIDES)
def side(request):
    """Which end of a TLS connection is the loop's."""
    return request.param
