"""Everything fails at once, and then the books are checked: ``python -m bench.chaos`` (docs/operations.md, "Chaos").

Real ``runbots``, ``serve`` and ``qcluster`` processes on a PostgreSQL and a Redis of their own (or one SQLite file),
the platforms of ``tests/fakes``, people who write, staff who act through the site, and faults by chance. It talks to
what it tests by commands, by HTTP and by the database's tables alone; ``process`` and ``plants`` are the exceptions.
"""
