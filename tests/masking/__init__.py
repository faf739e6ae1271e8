# SPDX-License-Identifier: Apache-2.0
"""Tests of the masking protocol: rounds, checks, lies, fuzz and primitives."""
