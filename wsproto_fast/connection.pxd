# The engine. An extension that embeds it may cimport Connection; calls of the cpdef methods are C calls then.
cimport cython
from libc.stdint cimport int64_t

from wsproto_fast._codec cimport new_key
from wsproto_fast.clock cimport Clock
from wsproto_fast.events cimport new_fragment, new_message
from wsproto_fast.messages cimport MessageAssembler
from wsproto_fast.reader cimport FrameReader
from wsproto_fast.sender cimport MessageSender
from wsproto_fast.writer cimport FrameWriter

cdef int BINARY, CONTROL, FIN, MESSAGES, NO_MESSAGE, PING, PONG, TEXT
cdef int NOTHING, DATA, EVENT
cdef int OPEN, CLOSING, CLOSED
cdef int MESSAGE_COST, NO_BUDGET


cdef class Connection:
    # rules of this connection
    cdef readonly object role
    cdef object _deflate
    cdef bint _auto_reply
    cdef int64_t _max_read_ahead
    # parts
    cdef FrameReader _reader
    cdef MessageAssembler _messages
    cdef FrameWriter _writer
    cdef MessageSender _sender
    cdef Clock _clock
    # events to be told
    cdef object _event
    cdef object _last_event
    # state
    cdef int _state
    cdef readonly bint paused
    cdef bint _eof
    cdef object _lost
    cdef bint _discarding
    cdef bint _in_place
    cdef Py_ssize_t _room
    # pings
    cdef dict _pings
    cdef bytes _keepalive_ping
    # counters
    cdef int64_t _messages_received
    cdef int64_t _bytes_received
    cdef int64_t _pings_received
    cdef int64_t _pongs_received
    # how it ended
    cdef public object subprotocol
    cdef readonly object close_code
    cdef readonly object close_reason
    cdef readonly object close_rcvd
    cdef readonly object close_sent
    cdef readonly object close_rcvd_then_sent
    cdef readonly object close_error
    cdef readonly object close_transport
    cdef object __weakref__

    @cython.locals(nbytes=Py_ssize_t)
    cpdef receive_data(self, object data)
    cdef int _check_read_ahead(self) except -1
    cpdef receive_eof(self)
    @cython.locals(reader=FrameReader)
    cpdef get_buffer(self, Py_ssize_t sizehint=*)
    cpdef bint reads_in_place(self) noexcept
    cpdef buffer_updated(self, object nbytes)
    @cython.locals(found=int)
    cpdef next_event(self)
    @cython.locals(result=list)
    cpdef list events(self)
    @cython.locals(found=int, messages=MessageAssembler, data=object, remaining=int64_t)
    cpdef dispatch(self, object on_message, object on_event, int64_t budget=*)
    cpdef pause(self)
    cpdef resume(self)
    cdef object _take_event(self)
    @cython.locals(messages=MessageAssembler, reader=FrameReader, first=bint)
    cdef object _data_event(self)
    @cython.locals(reader=FrameReader)
    cdef int _advance(self) except -1
    @cython.locals(reader=FrameReader)
    cdef int _advance_further(self) except -1
    @cython.locals(reader=FrameReader, messages=MessageAssembler, opcode=int, payload=bytes)
    cdef int _parse(self) except -1
    @cython.locals(reader=FrameReader, messages=MessageAssembler, payload=bytes, message_open=bint)
    cdef int _look_ahead(self) except -1
    cdef int _control(self, int opcode, bytes payload) except -1
    cdef object _match_pong(self, bytes payload)
    cdef void _receive_close(self, bytes payload) except *
    cdef int _queue_close(self, object close) except -1
    cdef int _discard(self) except -1
    cdef int _finish(self, int code, str reason, object error=*) except -1
    cdef int _fail(self, int code, str reason, object error) except -1
    cdef int _grow_close_transport(self, object action) except -1
    cdef object _not_open(self)
    cpdef send_message(self, int opcode, object data, object compress=*)
    cpdef send_prepared(self, object prepared, object compress=*)
    cpdef bytes send_ping(self, object payload=*)
    cdef int _remember_ping(self, bytes payload, object sent_at) except -1
    cpdef send_pong(self, object payload=*)
    cdef int _send_control(self, int first, bytes payload) except -1
    cpdef send_close(self, object code=*, object reason=*)
    cpdef fail(self, object code=*, object reason=*)
    cpdef list data_to_send(self)
    cpdef next_deadline(self)
    @cython.locals(clock=Clock)
    cpdef handle_timeout(self, double now)
    cdef int _send_heartbeat(self, double now) except -1
    cdef int _lose_peer(self) except -1
    @cython.locals(sender=MessageSender, messages=MessageAssembler)
    cdef int _release_contexts(self) except -1
