"""Benchmarks of the engine, and of servers and clients, against their peers. They report, and fail nothing.

``make bench``                     everything; its last output is the table of ratios
``python -m benchmarks.compare``   the README's table, in Markdown
``python -m benchmarks.memory``    bytes of an idle connection
``make bench-io``                  servers and clients: ``benchmarks/io``
``python -m benchmarks.callgrind`` instructions per message (needs valgrind)
"""
