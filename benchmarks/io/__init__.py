"""Servers and clients over real sockets: what a message costs, in CPU time, beside their peers (``make bench-io``).

``load.c``      the load for servers: keeps messages in flight and compares what comes back
``echo.c``      the floor, a server on epoll; clients are measured against it
``servers.py``  the servers, each in a process of its own
``clients.py``  the clients, likewise
``cases.py``    what is measured, and on whom
``running.py``  compiles, starts, pins, measures: interleaved rounds
``report.py``   the table, the Markdown, the chart
"""
