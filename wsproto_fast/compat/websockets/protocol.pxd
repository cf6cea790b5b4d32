# The frames of a connection. Its sides, and what embedders make of them, are Python classes that inherit from it.
cimport cython

from wsproto_fast._codec cimport build_frame, new_key
from wsproto_fast.connection cimport Connection
from wsproto_fast.events cimport Closed, CloseReceived, Fragment, Ping, Pong

cdef int FIN, NO_KEY


cdef class Protocol:
    # who we are
    cdef public object id
    cdef public object logger
    cdef public bint debug
    cdef public object side
    cdef public object max_message_size
    cdef public object max_fragment_size
    # state
    cdef object _state
    cdef public object current_size
    cdef public bint expect_continuation_frame
    # what was agreed on
    cdef public object origin
    cdef public object extensions
    cdef public object subprotocol
    # how it ended
    cdef public object close_rcvd
    cdef public object close_sent
    cdef public object close_rcvd_then_sent
    cdef public object handshake_exc
    cdef public object parser_exc
    cdef public bint eof_sent
    # what nobody has taken yet
    cdef public list events
    cdef public list writes
    # who reads what arrives
    cdef Connection _engine
    cdef object _frames
    cdef public bint _handshaking
    cdef bint _discarding
    cdef object _reader
    cdef bint _masking
    cdef dict __dict__
    cdef object __weakref__

    @cython.locals(engine=Connection, fragment=Fragment)
    cpdef receive_data(self, object data)
    cpdef list events_received(self)
    cpdef list data_to_send(self)
    @cython.locals(first=int)
    cdef int _send_data(self, object opcode, object data, bint fin) except -1
