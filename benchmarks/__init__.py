"""Benchmarks of the engine against its peers. They report, and fail nothing.

``make bench``                     everything; its last output is the table of ratios
``python -m benchmarks.compare``   the README's table, in Markdown
``python -m benchmarks.memory``    bytes of an idle connection
``python -m benchmarks.callgrind`` instructions per message (needs valgrind)
"""
