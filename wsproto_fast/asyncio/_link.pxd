# Between a transport and an engine.
cimport cython
from wsproto_fast.asyncio._native cimport get_ident, monotonic
from wsproto_fast.asyncio._scheduler cimport Scheduler
from wsproto_fast.connection cimport Connection as Engine

cdef Py_ssize_t _SCRATCH_SIZE
cdef Py_ssize_t CORK_SIZE
cdef double _IN_A_ROW
cdef int NO_BUDGET


cdef class Link:
    cdef public object transport
    cdef public Engine _engine
    # whose it is
    cdef public object _settings
    cdef public object _loop
    cdef public Scheduler _scheduler
    # input
    cdef public bint _opened
    cdef public bint _eof
    cdef public bint _reading_paused
    cdef bytearray _scratch
    cdef bytes _spill
    cdef public object _sink
    cdef public long long _budget
    # output
    cdef public bint _write_paused
    cdef public bint _flush_is_due
    cdef public bint _pumping
    cdef public bint _waking
    cdef bint _half_closed
    cdef public bint _lost
    cdef public int _corks
    cdef public double _sent_at
    # the time
    cdef public list _entry
    cdef public object _deadline
    # the end
    cdef object _close_transport
    cdef public object _transport_error
    cdef object _lost_waiter

    cpdef _check_open(self)
    cpdef _check_thread(self)
    cpdef _handshake_received(self, bytes data)
    cpdef _handshake_eof(self)
    cpdef _on_message(self, object data)
    cpdef _on_event(self, object event)
    cpdef _on_budget_spent(self)
    cpdef _on_failure(self, object exc)
    cpdef _on_end(self)
    cdef bint _has_news(self) except -1
    cpdef _wake(self, bint direct)
    cdef bint _more_received(self) except -1
    cpdef get_buffer(self, Py_ssize_t sizehint)
    cpdef buffer_updated(self, Py_ssize_t nbytes)
    cdef bint _reads_in_place(self) except -1
    cpdef _received(self, bytes data, bint direct)
    cpdef _until_lost(self)
    cpdef _feed_spill(self)
    cpdef _open(self, object engine)
    cpdef _pump(self, bint direct=*)
    cdef _leave_loop(self, object exc)
    cpdef _settle(self)
    cpdef _resume_input(self)
    cpdef _pause_reading(self, bint pause)
    cdef _flush(self)
    cdef _flush_send(self)
    @cython.locals(now=double)
    cdef bint _sent_right_before(self) except -1
    cpdef _flush_later(self)
    cpdef _on_turn_end(self)
    cdef _write(self)
    cpdef _on_writable(self)
    cpdef _obey(self, object close_transport)
    cpdef _can_half_close(self)
    cpdef _half_close(self)
    cpdef _rearm(self, object deadline)
    cpdef _on_timer(self, double now)
    cpdef _tell_time(self, double now)
