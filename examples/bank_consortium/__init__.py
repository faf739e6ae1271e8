# SPDX-License-Identifier: Apache-2.0
"""A pilot of five banks and an aggregator on one machine: see README.md."""
