//! [`MlsStream`]: both directions of a channel over one transport.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use zeroize::Zeroizing;

use super::{
    read_side::{Closing, Ends, Goal, Progress, ReadSide},
    wake::{Direction, Side},
    write_side::WriteSide,
};
use crate::{
    auth::{PeerIdentity, Role},
    crypto::CipherSuite,
    error::{ApiMisuse, Error},
    identity::Identity,
    name::ServerName,
    store::SessionId,
    two_party::{Control, Counters, EarlyDataStatus, HandshakeKind, KeyChange, Shared, Statistics},
};

/// An established channel over a transport; the same type for both roles.
///
/// What is written goes to the transport at once: a write returns when its bytes are sealed and
/// either handed over or, up to [`Limits::write_buffer`](crate::Limits::write_buffer), waiting for
/// the transport. Reading and writing both drive what the channel has to do by itself: a task that
/// only reads still answers the peer's rekeys, and a task that only writes still has its own
/// answered. Nothing happens while nobody calls.
///
/// `shutdown` sends a close_notify. The peer can go on sending, and rekeys go on in both
/// directions; the transport itself is shut down when both ends have closed, or when the stream is
/// dropped. Whoever closes second waits in `shutdown`, or at the end of reading, until an update that is
/// under way has been answered: a socket that is dropped before resets the connection. A transport that
/// ends without a close_notify gives [`Error::Truncated`], as an [`io::ErrorKind::UnexpectedEof`].
///
/// A connection that stays half-closed for long has two peculiarities:
///
/// - Whoever has closed answers the peer's updates, but its [policy](crate::RekeyPolicy) starts none of
///   its own, although it goes on receiving. A thief of its keys reads on until it calls
///   [`rekey`](MlsStream::rekey), which still works. Whoever receives for hours leaves its own direction
///   open, or calls it.
/// - After the peer's close_notify, reading gives the end at once and no longer looks at the transport.
///   If the peer then dies, only a write or a `rekey` finds out. Whoever has nothing to send until
///   something else happens waits for that with a timeout.
///
/// All methods are cancel-safe: a future that is dropped loses nothing.
pub struct MlsStream<IO> {
    pub(super) io: IO,
    pub(super) read: ReadSide,
    pub(super) write: WriteSide,
    pub(super) reading: Direction,
    pub(super) writing: Direction,
    pub(super) early_data: Option<Bytes>,
    pub(super) shared: Arc<Shared>,
}

/// The transport and the sending half, for the receiving half.
struct Rest<'a, IO> {
    io: &'a mut IO,
    write: &'a mut WriteSide,
    writing: &'a Direction,
    /// As whom the caller sends.
    side: Side,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> MlsStream<IO> {
    /// Renews this party's key material (CH-06). Resolves when the new epoch is in use in both
    /// directions. If an update is already on its way, this one follows it.
    ///
    /// While it waits for the peer, data that arrives is read ahead and kept. Dropping the future
    /// does not take the request back.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::UnreadData`] when more data arrived than may be read ahead: the rekey goes on
    /// and finishes while the stream is read. [`ApiMisuse::PeerClosed`] when the transport ended.
    pub async fn rekey(&mut self) -> io::Result<()> {
        let ticket = self.request_rekey()?;
        let is_done = |counters: &Counters| counters.own_updates.value() >= ticket;
        poll_fn(|cx| self.poll_until(is_done, cx)).await
    }

    /// Asks for an update without waiting for it; reading and writing carry it out. Gives the value
    /// of [`Statistics::own_updates`] at which it is in use.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Closed`] when both directions are closed, and the error that ended the channel.
    pub fn request_rekey(&mut self) -> io::Result<u64> {
        Ok(self.write.request_update()?)
    }

    /// Changes who this party is, without a new connection (2P-13). Resolves when the peer has accepted
    /// it and the new epoch is in use in both directions. See
    /// [`Connection::rotate_identity`](crate::Connection::rotate_identity).
    ///
    /// While it waits for the peer, data that arrives is read ahead and kept. Dropping the future
    /// does not take the change back.
    ///
    /// # Errors
    ///
    /// [`Error::RotationRefused`] when the peer does not accept the new identity: the channel goes on
    /// with the old one. [`ApiMisuse::RotationOutstanding`], [`ApiMisuse::SignatureScheme`] and
    /// [`ApiMisuse::PeersKey`] when nothing was asked for; otherwise as [`MlsStream::rekey`].
    pub async fn rotate_identity(&mut self, next: Identity) -> io::Result<()> {
        let outcome = self.write.request_rotation(next)?;
        poll_fn(|cx| self.poll_until(|_| outcome.get().is_some(), cx)).await?;
        Ok(outcome.get().unwrap_or(Ok(()))?)
    }

    /// Asks for a change of identity without waiting for it; reading and writing carry it out. The peer
    /// has decided when one of [`Statistics::rotations`] and [`Statistics::refused_rotations`] has
    /// grown.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rotate_identity`], except for what comes later.
    pub fn request_rotation(&mut self, next: Identity) -> io::Result<()> {
        self.write.request_rotation(next)?;
        Ok(())
    }

    fn poll_until(
        &mut self,
        is_done: impl Fn(&Counters) -> bool,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let drained =
                self.write.poll_drain(&mut self.io, &self.writing, Side::Owner, cx)?.is_ready();
            if is_done(&self.shared.counters) {
                return if drained { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.read.check_read_ahead()?;
            // The task waits in both directions, so it is the helper of the one it is not here for.
            if let Progress::End = ready!(self.poll_progress(Side::Helper, cx))? {
                return Poll::Ready(Err(Error::from(ApiMisuse::PeerClosed).into()));
            }
        }
    }

    /// Reads ahead on behalf of an application that only writes.
    fn help_reading(&mut self, cx: &Context<'_>) {
        while self.reading.needs_help() && self.read.check_read_ahead().is_ok() {
            // An error is the reader's to see; if it is fatal, the sending half knows it already.
            match self.poll_progress(Side::Helper, cx) {
                Poll::Ready(Ok(Progress::Data | Progress::Control | Progress::Input)) => {}
                _ => break,
            }
        }
    }

    fn poll_progress(&mut self, side: Side, cx: &Context<'_>) -> Poll<io::Result<Progress>> {
        let mut rest = Rest {
            io: &mut self.io,
            write: &mut self.write,
            writing: &self.writing,
            side: if side == Side::Owner { Side::Helper } else { Side::Owner },
        };
        let goal = if side == Side::Owner { Goal::Data } else { Goal::Answer };
        self.read.poll_progress(&mut rest, &self.reading, side, goal, cx)
    }

    /// Receives the next piece of application data without copying it: what one record held.
    pub(super) fn poll_bytes(&mut self, cx: &Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.reading.visit();
        loop {
            if let Some(data) = self.read.pop() {
                return Poll::Ready(Ok(Some(data.freeze())));
            }
            if let Progress::End = ready!(self.poll_progress(Side::Owner, cx))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    fn poll_write_slices(
        &mut self,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writing.visit();
        self.help_reading(cx);
        self.write.poll_write(bufs, &mut self.io, &self.writing, cx)
    }
}

impl<IO> MlsStream<IO> {
    /// Who this party is on this connection.
    pub fn identity(&self) -> &Identity {
        self.write.sender.identity()
    }

    /// Who the peer is: what the authentication service established.
    pub fn peer(&self) -> PeerIdentity {
        self.shared.peer()
    }

    /// The epoch of the group: it grows by one with each update of either party.
    pub fn epoch(&self) -> u64 {
        self.shared.counters.epoch.value()
    }

    /// Counters since the handshake.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// Whether this party connected or accepted.
    pub fn role(&self) -> Role {
        self.shared.info.role
    }

    /// The cipher suite.
    pub fn cipher_suite(&self) -> CipherSuite {
        self.shared.info.suite
    }

    /// The application protocol that was selected, if any.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.shared.info.alpn.as_deref()
    }

    /// The name of the service that the initiator asked for.
    pub fn server_name(&self) -> Option<&ServerName> {
        self.shared.info.server_name.as_ref()
    }

    /// A value that is the same at both ends of this connection and at no other (RFC 5056). It
    /// comes from the first epoch and never changes.
    pub fn channel_binding(&self) -> [u8; 32] {
        self.shared.info.channel_binding
    }

    /// How the connection began.
    pub fn handshake_kind(&self) -> HandshakeKind {
        self.shared.info.kind
    }

    /// Why a full handshake took place although a session was stored.
    pub fn not_resumed(&self) -> Option<&Error> {
        self.shared.info.not_resumed.as_ref()
    }

    /// What became of the early data that was given to
    /// [`MlsConnector::connect_with_early_data`](crate::MlsConnector::connect_with_early_data).
    /// `None`: none was.
    pub fn early_data(&self) -> Option<EarlyDataStatus> {
        self.shared.info.early_data
    }

    /// Early data of the peer, if it sent some, this party allowed it, and nobody has taken it before
    /// (TL-08). It is apart from what the stream reads, because it may have been held back on the way.
    pub fn take_early_data(&mut self) -> Option<Bytes> {
        self.early_data.take()
    }

    /// The name of the session, with which either end can resume it on another transport. `None`: it
    /// is not stored here.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.shared.info.session_id.as_ref()
    }

    /// A secret that both ends, and nobody else, can derive from the current epoch (RFC 9420,
    /// section 8.5). Both ends must be in the same epoch: compare [`MlsStream::epoch`].
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Exporter`] for a label that begins with `MLS-TLS `, and for a length of zero
    /// or above 255 hash lengths.
    pub fn export_secret(
        &self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.write.sender.export_secret(label, context, length)
    }

    /// The transport.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The transport. Reading from it or writing to it breaks the channel.
    pub fn get_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Gives up the channel, without a close_notify, and with whatever was buffered.
    pub fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Ends for Rest<'_, IO> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut *self.io), cx, &mut buf.limit(limit))
    }

    fn poll_control(
        &mut self,
        control: &mut Option<Control>,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<KeyChange>, Error>> {
        let result = control.take().map_or(Ok(None), |control| self.write.handle(control));
        self.drain(cx);
        Poll::Ready(result)
    }

    fn drain(&mut self, cx: &Context<'_>) {
        // A transport that cannot be written to any more fails the next write, not this read.
        let _ = self.write.poll_drain(self.io, self.writing, self.side, cx);
    }

    fn deadline(&self) -> Option<Instant> {
        self.write.sender.timeout()
    }

    fn closing(&self) -> Closing {
        self.write.closing()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MlsStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.reading.visit();
        loop {
            if this.read.copy_to(buf) || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Progress::End = ready!(this.poll_progress(Side::Owner, cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for MlsStream<IO> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        this.reading.visit();
        while this.read.unread().is_none() {
            if let Progress::End = ready!(this.poll_progress(Side::Owner, cx))? {
                break;
            }
        }
        Poll::Ready(Ok(this.read.unread().unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().read.consume(amount);
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MlsStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.writing.visit();
        this.help_reading(cx);
        let drained = this.write.poll_drain(&mut this.io, &this.writing, Side::Owner, cx);
        this.write.sender.check_failed()?;
        drained
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.writing.visit();
        this.help_reading(cx);
        ready!(this.write.poll_close(&mut this.io, &this.writing, cx))?;
        if !this.read.is_closed() {
            return Poll::Ready(Ok(()));
        }
        while !this.read.is_settled(this.write.closing()) {
            match ready!(this.poll_progress(Side::Helper, cx)) {
                Ok(Progress::Data | Progress::Control | Progress::Input) => {}
                // Nothing more will come to be waited for.
                Ok(Progress::End) | Err(_) => break,
            }
        }
        this.write.poll_shut_down(&mut this.io, &this.writing, cx)
    }
}

impl<IO> fmt::Debug for MlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlsStream")
            .field("role", &self.role())
            .field("peer", &self.peer())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
