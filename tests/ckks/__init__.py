# SPDX-License-Identifier: Apache-2.0
"""Tests of CKKS in which nobody holds the key: security, rings, rounds and checks."""
