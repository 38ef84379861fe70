//! The receiving half of a stream's state, without the transport.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, BytesMut};
use tokio::{io::ReadBuf, time::Sleep};

use super::{
    scratch::{self, READ_CAPACITY},
    wake::{Direction, Side},
};
use crate::{
    error::{ApiMisuse, Error},
    two_party::{Control, Front, Incoming, KeyChange, Receiver},
    wire::{HEADER_LEN, TAG_LEN},
};

/// Sizes of one read from the transport. Many records at once are cheap; a transport that clears what
/// it is offered should not have to clear more than it fills.
const MIN_READ: usize = 8 * 1024;
const MAX_READ: usize = READ_CAPACITY;

/// Shorter data is copied out of the buffer before it is handed out: it would hold all of the buffer.
const MIN_SHARED: usize = 4 * 1024;

/// What a piece of unread data takes besides its bytes: the handle, and the rest of its record.
const PIECE_OVERHEAD: usize = size_of::<BytesMut>() + HEADER_LEN + 1 + TAG_LEN;

/// Received bytes, opened data that nobody has read yet, and the machine between them.
pub(super) struct ReadSide {
    receiver: Receiver,
    input: BytesMut,
    read_size: usize,
    unread: VecDeque<BytesMut>,
    unread_bytes: usize,
    read_ahead: usize,
    /// To be dealt with by the sending half before the next record is opened.
    control: Option<Control>,
    failed: Option<Error>,
    end: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The rest of the stream as the receiving half sees it: the transport and the sending half.
pub(super) trait Ends {
    /// Reads at most `limit` bytes from the transport.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        limit: usize,
    ) -> Poll<io::Result<usize>>;

    /// Deals with a control message, taking it, and sends what comes of it. `Pending`: someone
    /// else has the sending half; `control` is untouched.
    fn poll_control(
        &mut self,
        control: &mut Option<Control>,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<KeyChange>, Error>>;

    /// Sends what is left over from earlier, if the transport takes it.
    fn drain(&mut self, cx: &Context<'_>);

    /// When the rekey policy has to be looked at, or the peer be revisited.
    fn deadline(&self) -> Option<Instant>;

    /// This side has closed; and if so, whether its last update is still to be answered.
    fn closing(&self) -> Closing;
}

/// How far the sending half is with closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    Open,
    /// Closed, with an update outstanding.
    Lingering,
    Closed,
}

/// What somebody reads for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The application's data.
    Data,
    /// The answer to an update, which may come after the peer has closed.
    Answer,
}

/// Why [`ReadSide::poll_progress`] returned.
pub(super) enum Progress {
    /// There is more to read.
    Data,
    /// A control message was dealt with.
    Control,
    /// Something has arrived, which the owner may want to open in its own way.
    Input,
    /// The peer has closed; nothing more will come.
    End,
}

impl ReadSide {
    pub(super) fn new(
        receiver: Receiver,
        input: BytesMut,
        early: Option<Incoming>,
        read_ahead: usize,
    ) -> Self {
        let mut side = Self {
            receiver,
            input,
            read_size: MIN_READ,
            unread: VecDeque::new(),
            unread_bytes: 0,
            read_ahead,
            control: None,
            failed: None,
            end: false,
            timer: None,
        };
        if let Some(incoming) = early {
            side.take(incoming);
        }
        side
    }

    /// Does one thing: deals with a control message, opens a record, or reads from the transport.
    pub(super) fn poll_progress(
        &mut self,
        ends: &mut impl Ends,
        direction: &Direction,
        side: Side,
        goal: Goal,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Progress>> {
        loop {
            if self.control.is_some() {
                let result = ready!(ends.poll_control(&mut self.control, cx));
                match result {
                    Ok(change) => {
                        if let Some(change) = change {
                            self.receiver.apply(change);
                        }
                        return Poll::Ready(Ok(Progress::Control));
                    }
                    Err(error) => self.failed = Some(error),
                }
            }
            if let Some(error) = &self.failed {
                return Poll::Ready(Err(error.clone().into()));
            }
            match self.receiver.next(&mut self.input) {
                Ok(Some(incoming)) => {
                    if self.take(incoming) {
                        return Poll::Ready(Ok(Progress::Data));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    self.control = Some(Control::Failure(error));
                    continue;
                }
            }
            ends.drain(cx);
            if self.end {
                return match self.receiver.handle_eof() {
                    Ok(()) => Poll::Ready(Ok(Progress::End)),
                    Err(error) => Poll::Ready(Err(error.into())),
                };
            }
            if goal == Goal::Data && self.receiver.is_closed() && self.is_settled(ends.closing()) {
                return Poll::Ready(Ok(Progress::End));
            }
            if let Some(passed) = self.poll_timer(ends.deadline(), direction, side, cx) {
                self.control = Some(Control::Timeout(passed));
                continue;
            }
            ready!(self.poll_fill(ends, direction, side, cx))?;
            if goal == Goal::Data {
                return Poll::Ready(Ok(Progress::Input));
            }
        }
    }

    /// Whether nothing more has to be read when both sides have closed.
    ///
    /// Answers to the last updates may still be on their way then. Whoever drops a TCP socket with
    /// unread data in it, or before they arrive, resets the connection, and the peer loses what it
    /// has not received yet.
    pub(super) fn is_settled(&self, closing: Closing) -> bool {
        match closing {
            Closing::Open => true,
            Closing::Lingering => false,
            Closing::Closed => !self.receiver.expects_switch(),
        }
    }

    /// Files what a record brought. True if it is data.
    fn take(&mut self, incoming: Incoming) -> bool {
        match incoming {
            Incoming::Data(data) => {
                self.unread_bytes += data.len();
                self.unread.push_back(data);
                true
            }
            Incoming::Control(control) => {
                self.control = Some(control);
                false
            }
        }
    }

    fn poll_fill(
        &mut self,
        ends: &mut impl Ends,
        direction: &Direction,
        side: Side,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.capacity() == 0 {
            self.input = scratch::take_read();
        }
        let limit = self.read_size.min(MAX_READ.saturating_sub(self.input.len())).max(MIN_READ);
        if self.input.capacity() - self.input.len() < limit {
            self.input.reserve(limit);
        }
        let polled = direction.poll(side, cx, |cx| ends.poll_read(cx, &mut self.input, limit));
        if polled.is_pending() {
            self.release();
        }
        let length = ready!(polled)?;
        if length == 0 {
            self.end = true;
        } else if length == limit {
            self.read_size = (self.read_size * 2).min(MAX_READ);
        } else if length < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the buffer back if nothing is in it.
    fn release(&mut self) {
        if self.input.is_empty() && self.unread.is_empty() && self.input.capacity() > 0 {
            scratch::give_read(&mut self.input);
        }
    }

    /// Gives the deadline when it has passed. Registers the task otherwise.
    fn poll_timer(
        &mut self,
        deadline: Option<Instant>,
        direction: &Direction,
        side: Side,
        cx: &Context<'_>,
    ) -> Option<Instant> {
        let passed = deadline?;
        let deadline = tokio::time::Instant::from_std(passed);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        // As a transport, a timer remembers one task.
        direction.register(side, cx);
        let mut cx = Context::from_waker(direction.waker());
        timer.as_mut().poll(&mut cx).is_ready().then_some(passed)
    }

    /// Opens the next record for the reader if it is here and there is room for it, straight into the
    /// reader's buffer if there is room for the type of its content as well. True if there may be
    /// another one.
    fn open_for(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.control.is_some() || self.failed.is_some() {
            return false;
        }
        let Some(length) = self.receiver.next_len(&self.input) else {
            return false;
        };
        if let Some(attention) = self.receiver.attention() {
            self.control = Some(attention);
            return false;
        }
        let front = if length <= buf.remaining() {
            let out = buf.initialize_unfilled_to(length);
            self.receiver.next_into(&mut self.input, out)
        } else if length <= buf.remaining() + 1 {
            self.receiver.open_front(&mut self.input)
        } else {
            return false;
        };
        match front {
            Ok(Front::Data(data)) if length <= buf.remaining() => buf.advance(data),
            Ok(Front::Data(data)) => {
                buf.put_slice(&self.input[HEADER_LEN..HEADER_LEN + data]);
                self.input.advance(HEADER_LEN + length + TAG_LEN);
            }
            Ok(Front::Control(control)) => self.control = Some(control),
            Ok(Front::Nothing | Front::Incomplete) => {}
            Err(error) => self.control = Some(Control::Failure(error)),
        }
        true
    }

    /// Opens another record that is already here, if it is data.
    fn open_buffered(&mut self) -> bool {
        if self.control.is_some() || self.failed.is_some() {
            return false;
        }
        match self.receiver.next(&mut self.input) {
            Ok(Some(incoming)) => self.take(incoming),
            Ok(None) => false,
            Err(error) => {
                self.control = Some(Control::Failure(error));
                false
            }
        }
    }

    /// The oldest unread data.
    pub(super) fn unread(&self) -> Option<&[u8]> {
        self.unread.front().map(|data| &data[..])
    }

    /// Marks unread data as read.
    pub(super) fn consume(&mut self, mut amount: usize) {
        self.unread_bytes = self.unread_bytes.saturating_sub(amount);
        while let Some(front) = self.unread.front_mut() {
            if amount < front.len() {
                front.advance(amount);
                return;
            }
            amount -= front.len();
            self.unread.pop_front();
        }
        self.release();
    }

    /// Takes the oldest unread data, without a copy if it is long.
    pub(super) fn pop(&mut self) -> Option<BytesMut> {
        let mut data = self.unread.pop_front()?;
        self.unread_bytes -= data.len();
        if data.len() < MIN_SHARED {
            data = BytesMut::from(&data[..]);
        }
        self.release();
        Some(data)
    }

    /// Puts unread data, and records that are already here, into the reader's buffer. True if
    /// there was anything.
    pub(super) fn copy_to(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let Some(unread) = self.unread() else {
                if self.open_for(buf) || (buf.filled().len() > before && self.open_buffered()) {
                    continue;
                }
                break;
            };
            let length = unread.len().min(buf.remaining());
            buf.put_slice(&unread[..length]);
            self.consume(length);
        }
        self.release();
        buf.filled().len() > before
    }

    /// Drops what nobody will read.
    pub(super) fn discard(&mut self) {
        self.unread.clear();
        self.unread_bytes = 0;
        self.release();
    }

    /// Whether more may be read ahead of the application. A piece takes more memory than its bytes.
    pub(super) fn check_read_ahead(&self) -> Result<(), Error> {
        if self.unread_bytes + self.unread.len() * PIECE_OVERHEAD >= self.read_ahead {
            return Err(ApiMisuse::UnreadData.into());
        }
        Ok(())
    }

    /// The peer has closed its direction.
    pub(super) fn is_closed(&self) -> bool {
        self.receiver.is_closed()
    }
}
