# TLS between a transport and a protocol.
cimport cython

cdef int _READ_SIZE, _RECORD, _CORK_SIZE
cdef int _NEW, _HANDSHAKE, _OPEN, _CLOSING, _CLOSED
cdef object _buffers


cdef class _Core:
    # above and below
    cdef object _loop
    cdef object _protocol
    cdef bint _buffered
    cdef object _lower
    # TLS
    cdef object _context
    cdef object _ssl
    cdef object _incoming
    cdef object _outgoing
    cdef bint _server_side
    # where the connection is
    cdef int _state
    cdef bint _established
    cdef object _on_handshake
    cdef object _handshake_timeout
    cdef object _shutdown_timeout
    cdef object _timer
    cdef object _error
    # reading
    cdef bint _paused
    cdef bint _more
    cdef bint _eof
    # writing
    cdef bint _corked
    cdef list _queue
    cdef Py_ssize_t _queued
    cdef bint _stalled
    cdef bint _lower_full
    cdef bint _told_full

    cdef int _shake_hands(self) except -1
    cdef int _open(self) except -1
    cdef int _report_handshake(self, object exc) except -1
    cdef int _fail_handshake(self, object exc) except -1
    cdef int _feed(self) except -1
    cdef int _read(self) except -1
    @cython.locals(size=Py_ssize_t, filled=Py_ssize_t, count=Py_ssize_t, ended=bint, more=bint)
    cdef bint _read_once(self) except -1
    @cython.locals(ended=bint)
    cdef object _settle(self)
    cdef int _truncated(self) except -1
    @cython.locals(size=Py_ssize_t)
    cdef object _flush(self)
    cdef int _encrypt(self, object pieces) except -1
    cdef int _write_records(self, list records) except -1
    cdef int _send(self) except -1
    @cython.locals(full=bint)
    cdef int _tell_if_full(self) except -1
    cdef bint _drop_incoming(self) except -1
    cdef bint _notify(self) except -1
    cdef int _close_lower(self) except -1
    cdef int _fatal(self, object exc) except -1
    cdef int _end_with_alert(self) except -1
    cdef int _complain(self, object exc, str message) except -1
    cdef int _stop_timer(self) except -1
