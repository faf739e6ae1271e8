# SPDX-License-Identifier: Apache-2.0
"""Engines move bytes between the parties; the protocol does not depend on which."""
