# Deadlines of a connection.
cimport cython
from libc.stdint cimport int64_t

cdef double NEVER, LATE


cdef class Clock:
    # rules
    cdef object _keepalive
    cdef object _close_timeout
    cdef object _idle_release
    cdef int64_t _max_control_frames
    # deadlines
    cdef bint wanted
    cdef bint _closing
    cdef double _close_by
    cdef double _ping_at
    cdef double _pong_by
    cdef bint _prolonged
    cdef double _release_at
    cdef double _rate_since
    # what the peer did
    cdef int64_t control_frames
    cdef bint heard
    cdef bint excused
    cdef bint stuck

    cdef object deadline(self)
    cdef int count_control_frame(self) except -1
    cdef int begin_close(self) except -1
    cdef int stop(self) except -1
    cdef bint close_overdue(self, double now) except -1
    @cython.locals(too_many=bint)
    cdef bint flooded(self, double now) except -1
    @cython.locals(late=double, timeout=double)
    cdef bint peer_lost(self, double now, bint reading_stopped, bint output_waits) except -1
    cdef bint ping_due(self, double now, bint reading_stopped) except -1
    cdef object heartbeat(self)
    @cython.locals(due=bint)
    cdef bint contexts_idle(self, double now) except -1
