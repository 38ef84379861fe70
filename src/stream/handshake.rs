//! Connecting and accepting.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use pin_project::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};
use tokio_util::io::poll_read_buf;

use super::{io::MlsStream, read_side::ReadSide, wake::Direction, write_side::WriteSide};
use crate::{
    config::{Config, Limits},
    error::Error,
    name::ServerName,
    store::SessionId,
    time::Time,
    two_party::{Established, Handshake, KeyPackages, Progress},
};

/// How much is read at once before the peer is known.
pub(super) const READ_SIZE: usize = 4096;

/// Opens channels as the initiator; the counterpart of `tokio_rustls::TlsConnector`.
#[derive(Clone)]
pub struct MlsConnector {
    config: Arc<Config>,
    key_packages: Arc<KeyPackages>,
}

/// Accepts channels as the responder; the counterpart of `tokio_rustls::TlsAcceptor`.
#[derive(Clone)]
pub struct MlsAcceptor {
    config: Arc<Config>,
}

/// A handshake in the role of the initiator; see [`MlsConnector::connect`].
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct Connect<IO>(#[pin] MidHandshake<IO>);

/// A handshake in the role of the responder; see [`MlsAcceptor::accept`].
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct Accept<IO>(#[pin] MidHandshake<IO>);

#[pin_project]
struct MidHandshake<IO> {
    io: Option<IO>,
    state: State,
    input: BytesMut,
    out: BytesMut,
    /// Early data of the peer that nobody has fetched yet.
    early_data: Option<Bytes>,
    limits: Limits,
    #[pin]
    timer: Sleep,
}

enum State {
    Handshaking(Box<Handshake>),
    /// What is in `out` has to reach the peer first.
    Established(Box<Established>),
    Failed(Error),
}

impl MlsConnector {
    /// Starts a handshake over `io`. The peer has to be who the authentication service says is
    /// `server_name`.
    ///
    /// With a [session store](crate::ConfigBuilder::session_store), the newest session with this
    /// server that no other connection uses is resumed; if there is none, or the peer refuses, a full
    /// handshake takes place on the same transport. [`MlsStream::handshake_kind`] says which it was.
    ///
    /// The future resolves to the stream when the responder has been authenticated. Dropping it
    /// drops the transport.
    ///
    /// # Errors
    ///
    /// An [`io::Error`] with an [`Error`] inside (see [`Error::from_io`]) when the handshake fails,
    /// within [`Limits::handshake_timeout`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        server_name: ServerName,
        io: IO,
    ) -> Connect<IO> {
        self.start(io, |now, out| {
            let config = Arc::clone(&self.config);
            Handshake::initiate(config, server_name, None, Some(&self.key_packages), now, out)
        })
    }

    /// As [`MlsConnector::connect`], with data that travels in the first flight if a session is
    /// resumed (TL-08).
    ///
    /// All of it is delivered, once, or nothing; [`MlsStream::early_data`] says which, and only
    /// [`EarlyDataStatus::Rejected`](crate::EarlyDataStatus::Rejected) means that it can be sent
    /// again without a risk. It is not sent again by itself. Whoever steals this party's state of that
    /// moment can read it: it is protected by this party's update, not yet by the peer's.
    ///
    /// # Errors
    ///
    /// As [`MlsConnector::connect`], and [`ApiMisuse::EarlyDataTooLong`](crate::error::ApiMisuse)
    /// above 1 MiB. The peer may take less: see [`Limits::max_early_data`].
    ///
    /// # Panics
    ///
    /// As [`MlsConnector::connect`].
    pub fn connect_with_early_data<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        server_name: ServerName,
        io: IO,
        early_data: &[u8],
    ) -> Connect<IO> {
        self.start(io, |now, out| {
            let (config, made) = (Arc::clone(&self.config), Some(&*self.key_packages));
            Handshake::initiate(config, server_name, Some(early_data), made, now, out)
        })
    }

    /// Resumes a certain session over `io` (2P-14). This party may have begun it in either role: a
    /// server can call its client back. Other connections of this party that use the session are
    /// given up, and there is no full handshake if the peer refuses.
    ///
    /// # Errors
    ///
    /// As [`MlsConnector::connect`]; [`Error::Session`] when there is no such session or it has come
    /// to its end.
    ///
    /// # Panics
    ///
    /// As [`MlsConnector::connect`].
    pub fn resume<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        session: &SessionId,
        io: IO,
    ) -> Connect<IO> {
        self.start(io, |now, out| {
            Handshake::resume(Arc::clone(&self.config), session, None, now, out)
        })
    }

    fn start<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        start: impl FnOnce(Time, &mut BytesMut) -> Result<Handshake, Error>,
    ) -> Connect<IO> {
        let mut out = BytesMut::new();
        let state = match start(Time::now(), &mut out) {
            Ok(handshake) => State::Handshaking(Box::new(handshake)),
            Err(error) => State::Failed(error),
        };
        Connect(MidHandshake::new(io, state, out, self.config.limits))
    }

    /// Makes KeyPackages for connections to this server before they are needed, on the calling
    /// thread. Clones of this connector use them, too. See [`KeyPackages`] for what that saves, and
    /// what it costs.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] when the cryptographic provider fails.
    pub fn make_key_packages(&self, server_name: &ServerName, count: usize) -> Result<(), Error> {
        self.key_packages.make(server_name, count, Time::now())
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }
}

impl MlsAcceptor {
    /// Answers a handshake over `io`.
    ///
    /// The future resolves to the stream when the initiator has been authenticated and has shown
    /// that it is there, with a first record under the new keys.
    ///
    /// # Errors
    ///
    /// As [`MlsConnector::connect`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, io: IO) -> Accept<IO> {
        let handshake = Handshake::respond(Arc::clone(&self.config), Time::now());
        let state = State::Handshaking(Box::new(handshake));
        Accept(MidHandshake::new(io, state, BytesMut::new(), self.config.limits))
    }

    /// As [`MlsAcceptor::accept`], in two steps: first early data, as soon as it is there, then the
    /// stream (TL-08). `None`: there is no early data, and the second step is done already.
    ///
    /// Early data comes from the peer of the session and is delivered once, but somebody may have
    /// held it back on the way. It has to be allowed: see [`Limits::max_early_data`].
    ///
    /// The peer is told that its data was accepted in the second step, not before. What the
    /// application stores in between it still has after a crash; data that it has fetched and not
    /// stored is gone then, and is not delivered again. [`MlsAcceptor::accept`] delivers early data,
    /// too, but later, when the peer knows already: see [`MlsStream::take_early_data`].
    ///
    /// # Errors
    ///
    /// As [`MlsAcceptor::accept`].
    ///
    /// # Panics
    ///
    /// As [`MlsAcceptor::accept`].
    pub async fn accept_with_early_data<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
    ) -> io::Result<(Option<Bytes>, Pin<Box<Accept<IO>>>)> {
        let mut accept = Box::pin(self.accept(io));
        let early_data = poll_fn(|cx| accept.as_mut().project().0.poll_early_data(cx)).await?;
        Ok((early_data, accept))
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Accept<IO> {
    /// A handshake whose first message is answered in `out`, with so much time left.
    pub(super) fn begun(
        io: IO,
        handshake: Result<Handshake, Error>,
        input: BytesMut,
        out: BytesMut,
        limits: Limits,
        left: Duration,
    ) -> Self {
        let state = match handshake {
            Ok(handshake) => State::Handshaking(Box::new(handshake)),
            Err(error) => State::Failed(error),
        };
        let timer = tokio::time::sleep(left);
        Self(MidHandshake { io: Some(io), state, input, out, early_data: None, limits, timer })
    }
}

impl<IO> Connect<IO> {
    /// The transport. `None`: it is in the stream that the future has given.
    pub fn get_ref(&self) -> Option<&IO> {
        self.0.io.as_ref()
    }
}

impl<IO> Accept<IO> {
    /// The transport. `None`: it is in the stream that the future has given.
    pub fn get_ref(&self) -> Option<&IO> {
        self.0.io.as_ref()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> MidHandshake<IO> {
    fn new(io: IO, state: State, out: BytesMut, limits: Limits) -> Self {
        let timer = tokio::time::sleep(limits.handshake_timeout);
        let input = BytesMut::new();
        Self { io: Some(io), state, input, out, early_data: None, limits, timer }
    }

    fn poll_handshake(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<MlsStream<IO>>> {
        ready!(self.as_mut().poll_progress(false, cx))?;
        let this = self.project();
        let state = std::mem::replace(this.state, State::Failed(Error::Truncated));
        match (state, this.io.take()) {
            (State::Established(established), Some(io)) => {
                let input = std::mem::take(this.input);
                let mut stream = MlsStream::new(io, *established, input, *this.limits);
                stream.early_data = this.early_data.take();
                Poll::Ready(Ok(stream))
            }
            _ => Poll::Ready(Err(io::Error::other("polled after completion"))),
        }
    }

    /// Waits for early data, or for the end of the handshake if there is none.
    fn poll_early_data(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        ready!(self.as_mut().poll_progress(true, cx))?;
        Poll::Ready(Ok(self.project().early_data.take()))
    }

    /// Works until the handshake is complete and all is sent or, if so wanted, until there is early
    /// data.
    fn poll_progress(
        self: Pin<&mut Self>,
        until_early_data: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut this = self.project();
        let expired = this.timer.as_mut().poll(cx).is_ready();
        let Some(io) = this.io else {
            return Poll::Ready(Err(io::Error::other("polled after completion")));
        };
        if expired && let State::Handshaking(handshake) = this.state {
            // The timer decides, whatever the clock says.
            let mut now = Time::now();
            now.monotonic = now.monotonic.max(handshake.deadline());
            if let Err(error) = handshake.handle_timeout(now, this.out) {
                *this.state = State::Failed(error);
            }
        }
        loop {
            // The answer stays here until the application has the data: it says that it does.
            if until_early_data && this.early_data.is_some() {
                return Poll::Ready(Ok(()));
            }
            let sent = send(io, this.out, cx);
            let handshake = match this.state {
                State::Handshaking(handshake) => handshake,
                State::Established(_) => match sent {
                    Poll::Pending if expired => {
                        let timeout = this.limits.handshake_timeout;
                        return Poll::Ready(Err(Error::HandshakeTimeout(timeout).into()));
                    }
                    sent => return sent,
                },
                // The alert is worth the time that is left, not more.
                State::Failed(error) => {
                    if sent.is_pending() && !expired {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Err(error.clone().into()));
                }
            };
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            let unsent = this.out.len();
            match handshake.handle_input(Time::now(), this.input, this.out) {
                Ok(Progress::Established(established)) => {
                    *this.state = State::Established(established);
                    continue;
                }
                Ok(Progress::EarlyData(data)) => {
                    *this.early_data = Some(data);
                    continue;
                }
                Ok(Progress::NeedsInput) if this.out.len() > unsent => continue,
                Ok(Progress::NeedsInput) => {}
                Err(error) => {
                    *this.state = State::Failed(error);
                    continue;
                }
            }
            this.input.reserve(READ_SIZE);
            if ready!(poll_read_buf(Pin::new(&mut *io), cx, this.input))? == 0 {
                *this.state = State::Failed(handshake.handle_eof());
            }
        }
    }
}

/// Sends all of `out` and flushes the transport.
pub(super) fn send<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    out: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        let written = ready!(Pin::new(&mut *io).poll_write(cx, out))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        out.advance(written);
    }
    Pin::new(io).poll_flush(cx)
}

impl<IO> MlsStream<IO> {
    fn new(io: IO, established: Established, input: BytesMut, limits: Limits) -> Self {
        let Established { sender, receiver, shared, early, .. } = established;
        Self {
            io,
            read: ReadSide::new(receiver, input, early, limits.read_ahead),
            write: WriteSide::new(sender, limits.write_buffer),
            reading: Direction::new(),
            writing: Direction::new(),
            early_data: None,
            shared,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Connect<IO> {
    type Output = io::Result<MlsStream<IO>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().0.poll_handshake(cx)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Accept<IO> {
    type Output = io::Result<MlsStream<IO>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().0.poll_handshake(cx)
    }
}

impl From<Arc<Config>> for MlsConnector {
    fn from(config: Arc<Config>) -> Self {
        let key_packages = Arc::new(KeyPackages::new(Arc::clone(&config)));
        Self { config, key_packages }
    }
}

impl From<Arc<Config>> for MlsAcceptor {
    fn from(config: Arc<Config>) -> Self {
        Self { config }
    }
}

impl fmt::Debug for MlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlsConnector").field("config", &self.config).finish()
    }
}

impl fmt::Debug for MlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlsAcceptor").field("config", &self.config).finish()
    }
}

impl<IO> fmt::Debug for Connect<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

impl<IO> fmt::Debug for Accept<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").finish_non_exhaustive()
    }
}
