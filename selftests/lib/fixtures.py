# SPDX-License-Identifier: GPL-2.0
"""Fixtures: objects that take long to set up, and that several cases share."""
import contextlib
import functools

kept = contextlib.ExitStack()   # closed when all cases have run


def fixture(function):
    """Decorates a generator function that yields once, as contextlib.contextmanager
    does. The first call with some arguments sets up the fixture and returns the yielded
    value. Later calls with the same arguments return the same value. All fixtures are
    torn down when all cases have run. cache_clear() makes the next call set up again."""
    context = contextlib.contextmanager(function)

    @functools.cache
    @functools.wraps(function)
    def shared(*args):
        return kept.enter_context(context(*args))

    return shared
