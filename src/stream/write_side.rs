//! The sending half of a stream's state, without the transport.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::AsyncWrite;

use super::{
    read_side::Closing,
    scratch::Outgoing,
    wake::{Direction, Side},
};
use crate::{
    error::{Error, PeerMisbehaved},
    identity::Identity,
    time::Time,
    two_party::{Control, KeyChange, Outcome, Sender},
    wire::{ENVELOPE_LEN, HEADER_LEN, MAX_PLAINTEXT, TAG_LEN},
};

/// An answer to an update on the wire: a record of its own.
const ANSWER_LEN: usize = HEADER_LEN + ENVELOPE_LEN + size_of::<u64>() + 1 + TAG_LEN;

/// Sealed bytes that are handed over before more are sealed: two records of full size. They are still in
/// the processor's nearest caches when the transport copies them, and the peer opens them meanwhile.
const PIECE_LEN: usize = 2 * (HEADER_LEN + MAX_PLAINTEXT + 1 + TAG_LEN);

/// Sealed records that wait for the transport, and the machine that seals them.
pub(super) struct WriteSide {
    pub(super) sender: Sender,
    out: Outgoing,
    limit: usize,
    /// Something was written to the transport since it was last flushed.
    unflushed: bool,
    /// The transport's sending direction is gone.
    broken: Option<io::ErrorKind>,
    /// How much of `out` is up to the close_notify, once that was sealed.
    closing: Option<usize>,
    /// How much of `out` is up to the answer to the peer's last update.
    answer: usize,
    /// The transport's sending direction has been shut down.
    shut_down: bool,
}

impl WriteSide {
    pub(super) fn new(sender: Sender, limit: usize) -> Self {
        Self {
            sender,
            out: Outgoing::default(),
            limit,
            unflushed: false,
            broken: None,
            closing: None,
            answer: 0,
            shut_down: false,
        }
    }

    /// Seals as much of the buffers as there is room for, and sends what the transport takes. At
    /// least one byte is accepted, or the transport is not ready.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        bufs: &[io::IoSlice<'_>],
        io: &mut W,
        direction: &Direction,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.check_broken()?;
        if let Err(error) = self.sender.check_open() {
            // The alert, if there is one, is for the peer.
            let _ = self.poll_drain(io, direction, Side::Owner, cx);
            return Poll::Ready(Err(error.into()));
        }
        if let Err(error) = self.check_timeout() {
            let _ = self.poll_drain(io, direction, Side::Owner, cx);
            return Poll::Ready(Err(error.into()));
        }
        if self.out.len() >= self.limit {
            ready!(self.poll_drain(io, direction, Side::Owner, cx))?;
        }
        let mut accepted = 0;
        let mut blocked = false;
        for record in bufs.iter().flat_map(|buf| buf.chunks(MAX_PLAINTEXT)) {
            if accepted > 0 && self.out.len() >= PIECE_LEN && !blocked {
                match self.poll_drain(io, direction, Side::Owner, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending => blocked = true,
                }
            }
            let length = record.len().min(self.limit.saturating_sub(self.out.len()));
            self.sender.write(&record[..length], &mut self.out)?;
            accepted += length;
            if length < record.len() {
                break;
            }
        }
        self.sender.poll_update(&mut self.out)?;
        match self.poll_drain(io, direction, Side::Owner, cx) {
            // What was accepted is reported once, whatever becomes of it.
            Poll::Ready(Err(error)) if accepted == 0 => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(accepted)),
        }
    }

    /// Seals all of the data, whatever the limit; [`WriteSide::has_room`] was asked before.
    pub(super) fn seal_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.check_broken()?;
        self.check_timeout()?;
        self.sender.write(data, &mut self.out)?;
        Ok(self.sender.poll_update(&mut self.out)?)
    }

    /// Sends all that is sealed and flushes the transport.
    pub(super) fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        direction: &Direction,
        side: Side,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_broken()?;
        if !self.has_output() {
            return Poll::Ready(Ok(()));
        }
        let result: Poll<io::Result<()>> = direction.poll(side, cx, |cx| {
            while !self.out.is_empty() {
                let written = ready!(Pin::new(&mut *io).poll_write(cx, self.out.waiting()))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.advance(written);
                self.closing = self.closing.map(|left| left.saturating_sub(written));
                self.answer = self.answer.saturating_sub(written);
                self.unflushed = true;
            }
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            self.unflushed = false;
            Poll::Ready(Ok(()))
        });
        if let Poll::Ready(Err(error)) = &result {
            self.broken = Some(error.kind());
        }
        result
    }

    pub(super) fn check_broken(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Sends the close_notify.
    pub(super) fn poll_close<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        direction: &Direction,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.sender.close(&mut self.out)?;
        if self.closing.is_none() {
            self.closing = Some(self.out.len());
        }
        // An answer to the peer may follow the close_notify; nobody has to wait for that.
        if self.poll_drain(io, direction, Side::Owner, cx)?.is_pending() && self.closing != Some(0)
        {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Shuts the transport down. Only when the peer has closed, too: until then its updates have to
    /// be answered.
    pub(super) fn poll_shut_down<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        direction: &Direction,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(io, direction, Side::Owner, cx))?;
        if !self.shut_down {
            ready!(direction.poll(Side::Owner, cx, |cx| Pin::new(io).poll_shutdown(cx)))?;
            self.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Deals with what the receiving half found.
    pub(super) fn handle(&mut self, control: Control) -> Result<Option<KeyChange>, Error> {
        let before = self.out.len();
        let is_update = matches!(control, Control::Update(_));
        let control = match control {
            // Who updates again before it can have the answer to its last update breaks the rule of
            // one at a time (2P-07), and would make the answers pile up here without reading one.
            Control::Update(_) if self.answer > 0 => {
                Control::Failure(PeerMisbehaved::TooManyUpdates.into())
            }
            control => control,
        };
        let change = self.sender.handle(control, Time::now(), &mut self.out)?;
        // An EpochKeyUpdate, or an UpdateRefused of the same length.
        if is_update && self.out.len() > before {
            // The answer comes first; an update of this party may follow it.
            self.answer = before + ANSWER_LEN;
        }
        Ok(change)
    }

    /// Asks for an update and starts it if none is outstanding.
    pub(super) fn request_update(&mut self) -> Result<u64, Error> {
        let ticket = self.sender.request_update()?;
        self.sender.poll_update(&mut self.out)?;
        Ok(ticket)
    }

    /// Asks for a change of identity and starts it if no update is outstanding.
    pub(super) fn request_rotation(&mut self, next: Identity) -> Result<Outcome, Error> {
        let outcome = self.sender.request_rotation(next)?;
        self.sender.poll_update(&mut self.out)?;
        Ok(outcome)
    }

    /// Looks at the clock if there is a deadline.
    fn check_timeout(&mut self) -> Result<(), Error> {
        if let Some(deadline) = self.sender.timeout()
            && Instant::now() >= deadline
        {
            self.sender.handle_timeout(Time::now(), &mut self.out)?;
        }
        Ok(())
    }

    /// How far this side is with closing.
    pub(super) fn closing(&self) -> Closing {
        match (self.sender.is_closed(), self.sender.is_lingering()) {
            (false, _) => Closing::Open,
            (true, true) => Closing::Lingering,
            (true, false) => Closing::Closed,
        }
    }

    /// Something waits for the transport.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// There is room for another write.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < self.limit
    }
}
