"""Benchmarks of the data path: each figure is a ratio to a reference measured in the same run.

``python -m benchmarks`` measures everything and writes ``RESULTS.md``; what the
figures mean is told in ``docs/explanations/performance.md``. One module a
subject; each has a tuple ``BENCHMARKS`` of functions that take an
:class:`~benchmarks.figure.Effort` and return figures. The tests run the same
functions once, in their smallest size.
"""
