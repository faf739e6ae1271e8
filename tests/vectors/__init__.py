# SPDX-License-Identifier: Apache-2.0
"""The vectors of protocols/: a second implementation makes them, the package replays.

``reference.py`` is written from SPEC.md alone and imports nothing of
``secure_fl.masking``; ``generate.py`` writes the JSON files with it.
"""
