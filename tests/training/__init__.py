# SPDX-License-Identifier: Apache-2.0
"""Tests of secure_fl.training."""
