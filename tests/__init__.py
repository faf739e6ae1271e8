# SPDX-License-Identifier: Apache-2.0
"""Tests.  What several folders share stands in modules of this package."""
