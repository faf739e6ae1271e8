# SPDX-License-Identifier: Apache-2.0
"""What every engine guarantees: one set of assertions, run over each of them."""
