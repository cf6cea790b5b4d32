cimport cython


cdef class Event:
    pass


cdef class Message(Event):
    cdef readonly object data
    cdef readonly object opcode


cdef class Fragment(Event):
    cdef readonly object opcode
    cdef readonly object data
    cdef readonly bint first
    cdef readonly bint fin
    cdef readonly bint frame_fin


cdef class Ping(Event):
    cdef readonly bytes payload


cdef class Pong(Event):
    cdef readonly bytes payload
    cdef readonly tuple acknowledged
    cdef readonly object sent_at


cdef class CloseReceived(Event):
    cdef readonly int code
    cdef readonly str reason


cdef class Closed(Event):
    cdef readonly int code
    cdef readonly str reason
    cdef readonly object error


@cython.locals(event=Message)
cpdef Message new_message(object data, object opcode)


@cython.locals(event=Fragment)
cpdef Fragment new_fragment(object opcode, object data, bint first, bint fin, bint frame_fin)
