# cython: language_level=3
"""An echo that embeds the engine in C: bytes in, bytes out, and no Python frame between them."""

from wsproto_fast.connection cimport Connection

from wsproto_fast import Closed, Role


cdef class Echo:
    """One client of an echo server, behind its opening handshake.

    ``receive(data)`` takes what the socket read, ``b""`` for its end, and returns the chunks to write to it.
    """

    cdef readonly Connection connection
    cdef readonly long long messages
    cdef readonly bint closed
    cdef object tell, tell_event

    def __cinit__(self, **settings):
        self.connection = Connection(Role.SERVER, **settings)
        # Bound once: to make a bound method costs more than to call it. That makes us a cycle, which the garbage
        # collector frees.
        self.tell = self.on_message
        self.tell_event = self.on_event

    cpdef on_message(self, message):
        self.messages += 1
        # cpdef methods of a cimported class are C calls; 1 and 2 are the opcodes of text and binary.
        self.connection.send_message(1 if type(message) is str else 2, message)

    cpdef on_event(self, event):
        if type(event) is Closed:
            self.closed = True

    cpdef list receive(self, bytes data):
        cdef Connection connection = self.connection
        if data:
            connection.receive_data(data)
        else:
            connection.receive_eof()
        connection.dispatch(self.tell, self.tell_event)
        return connection.data_to_send()
