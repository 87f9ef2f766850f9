# SPDX-License-Identifier: GPL-2.0
"""MINESP_SEED: the seed of random tests. Without MINESP_SEED, each run takes a new seed."""
import os
import random

SEED = int(os.environ.get("MINESP_SEED", random.randrange(2 ** 32)))
