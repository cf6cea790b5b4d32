# The hot half of a connection.
cimport cython
from wsproto_fast.connection cimport Connection as Engine
from wsproto_fast.threading._native cimport Lock, Wire, monotonic

cdef int BINARY, TEXT
cdef double _GRACE, TICK
cdef Py_ssize_t CORK_SIZE


cdef class Core:
    cdef public object _settings
    cdef public Lock _lock
    cdef public Engine _engine
    cdef public Wire _wire
    cdef public object _tls
    cdef public bint _opened
    # messages received
    cdef public object _queue
    cdef public Py_ssize_t _queue_bytes
    cdef Py_ssize_t _queue_high
    cdef long long _queue_bytes_high
    cdef public object _arrived
    cdef public bint _paused
    cdef public bint _abandoned
    # who reads
    cdef public unsigned long _reader
    cdef public unsigned long _reads
    cdef unsigned long _swept
    cdef public bint _candidate
    cdef public bint _streaming
    cdef public bint _raw
    cdef public bint _eof
    cdef public bint _ended
    cdef public object _changed
    # messages sent
    cdef public list _unsent
    cdef public Py_ssize_t _unsent_size
    cdef public bint _write_paused
    cdef Py_ssize_t _write_high
    cdef Py_ssize_t _write_low
    cdef public bint _fragmenting
    cdef public int _corks
    cdef unsigned long _taker
    cdef bint _held
    cdef public tuple _watchers
    cdef public tuple _leaving
    cdef public bint _writable
    # the poller
    cdef public bint _attended
    cdef public int _watched
    cdef public list _entry
    cdef public object _deadline
    cdef public bint _news
    # the end
    cdef public int _users
    cdef public object _closing_since
    cdef public object _close_transport
    cdef public bint _half_closed
    cdef public object _transport_error
    cdef public bint _lost
    cdef public tuple _names
    cdef public object _sink
    cdef public object _callback

    cpdef _set_raw(self, bint raw)
    cpdef _on_end(self)
    cpdef _next(self, object timeout)
    @cython.locals(deadline=double)
    cdef _receive(self, object timeout)
    @cython.locals(wire=Wire, in_place=bint, waits=bint, count=Py_ssize_t)
    cdef _read(self, double deadline)
    cpdef _take(self)
    cpdef _resume_input(self)
    cpdef _received(self, bytes data)
    cpdef _decrypt(self)
    cdef _end_input(self)
    cpdef _on_message(self, object data)
    cpdef _put(self, object item, Py_ssize_t size)
    cpdef _pause_input(self)
    cpdef _pump(self)
    cpdef _send_message(self, object message, object text, object compress)
    cdef bint _is_between(self) except -1
    cpdef _check_open(self)
    cpdef _sendable(self, double deadline)
    cpdef _drain(self, double deadline)
    cdef _await_writable(self, double deadline)
    @cython.locals(chunks=list, data=bytes, sent=Py_ssize_t)
    cpdef _flush(self)
    @cython.locals(waiting=Py_ssize_t)
    cdef _weigh(self)
    cdef _send_chunks(self, list chunks)
    cdef _send_records(self)
    @cython.locals(data=bytes, sent=Py_ssize_t, done=Py_ssize_t)
    cdef bint _send_unsent(self) except -1
    cpdef _on_full(self)
    cpdef _on_writable(self)
    @cython.locals(engine=Engine)
    cpdef _settle(self)
    cdef _rearm(self, object deadline)
    cpdef _tell_time(self, double now)
    cdef _fail_output(self, object exc)
    cdef _fail_transport(self, object exc)
    cdef _keep_error(self, object exc)
    cdef _drop_output(self)
    cdef _obey(self, object action)
    cdef _half_close(self)
    cpdef _lose(self)
    cdef _dispose(self)
    cpdef _addresses(self)
    cpdef _notify(self)
    cpdef _attend(self)
    cdef bint _may_read(self) except -1
    cdef _read_now(self)
