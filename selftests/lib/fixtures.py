# SPDX-License-Identifier: GPL-2.0
"""Fixtures: what takes long to set up, and several cases share."""
import contextlib
import functools

kept = contextlib.ExitStack()   # closed when all cases have run


def fixture(function):
    """Decorates a generator function that yields once, as contextlib.contextmanager
    does. A call with new arguments sets up, and returns what was yielded; another call
    with the same ones returns the same. All of it is torn down when all cases have run.
    cache_clear() makes the next call set up anew."""
    context = contextlib.contextmanager(function)

    @functools.cache
    @functools.wraps(function)
    def shared(*args):
        return kept.enter_context(context(*args))

    return shared
