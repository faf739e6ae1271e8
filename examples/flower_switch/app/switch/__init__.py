# SPDX-License-Identifier: Apache-2.0
"""Five banks, one small model."""
