# The hot half of a connection.
cimport cython
from wsproto_fast.asyncio._link cimport Link
from wsproto_fast.asyncio._native cimport Steps, get_ident, run_in

cdef int BINARY, TEXT, MESSAGE_COST, NO_BUDGET
cdef int NEW, WAITING, OVER
cdef Py_ssize_t CORK_SIZE, TURN
cdef int BURST


cdef class Receive(Steps):
    @cython.locals(connection=Core)
    cdef bint step(self) except -1
    @cython.locals(connection=Core)
    cdef bint _wait(self) except -1
    cdef bint _end(self) except -1
    cdef bint _take_other(self, object item) except -1
    cdef bint _step_rest(self) except -1
    cdef object _converted(self, object item)
    cdef bint takes_any(self) except -1
    cdef object _decode(self)


@cython.locals(coroutine=Receive)
cdef Receive _new_receive(Core connection, object wanted)


cdef class Send(Steps):
    @cython.locals(connection=Core)
    cdef bint step(self) except -1


@cython.locals(coroutine=Send)
cdef Send _new_send(Core connection, object message, object text, object compress, object timeout)


cdef class Core(Link):
    # receiving
    cdef public object _queue
    cdef public Py_ssize_t _queue_bytes
    cdef Py_ssize_t _queue_high
    cdef long long _queue_bytes_high
    cdef public Py_ssize_t _taken
    cdef public Receive _receiver
    cdef object _waiter
    cdef object _arrived
    cdef public bint _paused
    cdef public bint _abandoned
    cdef public bint _streaming
    cdef public bint _ended
    cdef public bint _raw
    cdef public bint _turn_is_due
    cdef public object _callback
    cdef bint _recv_is_ours
    # sending
    cdef public bint _overdue
    cdef public int _burst
    cdef public object _fragmenting
    cdef public dict _drain_waiters
    cdef public tuple _watchers

    cpdef _set_raw(self, bint raw)
    cpdef _closed_error(self)
    cpdef _check_receiving(self, object wanted)
    cpdef _check_queue(self)
    cdef bint _has_news(self) except -1
    cdef bint _more_received(self) except -1
    @cython.locals(size=Py_ssize_t)
    cpdef _take(self)
    cpdef _converted(self, object item, object decode)
    @cython.locals(receiver=Receive)
    cpdef _on_message(self, object data)
    cdef _keep_arrived(self)
    cdef _take_arrived(self)
    cpdef _put(self, object item, Py_ssize_t size)
    cpdef _fail(self, object code, object reason)
    cdef bint _sends_now(self, object message) except -1
    cdef bint _sent(self, object message, object text, object compress) except -1
    cpdef _send_message(self, object message, object text, object compress)
    cpdef _send_prepared(self, object prepared)
    cpdef bint _ready(self) except -1


@cython.locals(connection=Core, others=list)
cpdef list send_to_ready(object connections, object prepared)
