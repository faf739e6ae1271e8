# SPDX-License-Identifier: Apache-2.0
"""The report's pages in a real browser.  ``make browser`` installs what they need."""
