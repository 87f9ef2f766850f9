# SPDX-License-Identifier: GPL-2.0
"""MINESP_SEED: what random tests are made from. Without it each run has another one."""
import os
import random

SEED = int(os.environ.get("MINESP_SEED", random.randrange(2 ** 32)))
