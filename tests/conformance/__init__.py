# SPDX-License-Identifier: Apache-2.0
"""Other implementations: the runner, and a client in JavaScript."""
