# SPDX-License-Identifier: Apache-2.0
"""The command line: one verb per job, errors on stderr, answers on stdout."""
