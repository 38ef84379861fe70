//! Accepting with a configuration that is chosen when the ClientHello is here.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};
use tokio_util::io::poll_read_buf;

use super::handshake::{Accept, READ_SIZE, send};
use crate::{
    config::{Config, Limits},
    error::Error,
    time::Time,
    two_party::{Accepted, Acceptor, ClientHello},
};

/// Accepts a channel whose configuration is chosen by what the initiator says; the counterpart of
/// `tokio_rustls::LazyConfigAcceptor`.
///
/// The future resolves when the first message is here. Nothing has been answered then.
///
/// ```
/// # use std::{collections::HashMap, sync::Arc};
/// # use mls_channel::{Config, Identity, LazyConfigAcceptor, Limits, MlsConnector, PinnedKeys, ServerName};
/// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = Identity::generate("client")?;
/// # let config = |own: &Identity, other: &Identity| -> Result<_, mls_channel::Error> {
/// #     let pinned = PinnedKeys::parse(&other.public_line())?;
/// #     Ok(Arc::new(Config::builder().identity(own.clone()).authentication_service(pinned).build()?))
/// # };
/// # let (near, far) = tokio::io::duplex(16 * 1024);
/// # let a = Identity::generate("a.example")?;
/// # let b = Identity::generate("b.example")?;
/// # let client_config = config(&client, &b)?;
/// let hosts = HashMap::from([("a.example", config(&a, &client)?), ("b.example", config(&b, &client)?)]);
///
/// let serve = async {
///     let start = LazyConfigAcceptor::new(far, Limits::default()).await?;
///     let name = start.client_hello().server_name().map(|name| name.as_str());
///     let config = name.and_then(|name| hosts.get(name)).ok_or(std::io::ErrorKind::NotFound)?;
///     let mut stream = start.into_stream(Arc::clone(config)).await?;
///     stream.write_all(b"this is b").await?;
///     stream.shutdown().await
/// };
/// # let connect = async {
/// #     let connector = MlsConnector::from(client_config);
/// #     let mut stream = connector.connect(ServerName::new("b.example")?, near).await?;
/// #     let mut answer = Vec::new();
/// #     stream.read_to_end(&mut answer).await?;
/// #     assert_eq!(answer, b"this is b");
/// #     std::io::Result::Ok(())
/// # };
/// # tokio::try_join!(serve, connect)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct LazyConfigAcceptor<IO> {
    io: Option<IO>,
    acceptor: Acceptor,
    input: BytesMut,
    out: BytesMut,
    failed: Option<Error>,
    began: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The first message of an initiator is here; see [`LazyConfigAcceptor`].
pub struct StartHandshake<IO> {
    io: IO,
    accepted: Accepted,
    input: BytesMut,
    limits: Limits,
    began: Instant,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> LazyConfigAcceptor<IO> {
    /// Waits for the first message on `io`. Of the limits, those for the handshake's time and a
    /// message's size matter here.
    ///
    /// # Errors
    ///
    /// The future gives an [`io::Error`] with an [`Error`] inside (see [`Error::from_io`]) when the
    /// message is none, or does not come within [`Limits::handshake_timeout`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub fn new(io: IO, limits: Limits) -> Self {
        let acceptor = Acceptor::new(limits, Time::now());
        Self::waiting(io, acceptor, BytesMut::new(), BytesMut::new(), limits, Instant::now())
    }

    fn waiting(
        io: IO,
        acceptor: Acceptor,
        input: BytesMut,
        out: BytesMut,
        limits: Limits,
        began: Instant,
    ) -> Self {
        let left = limits.handshake_timeout.saturating_sub(began.elapsed());
        let timer = Box::pin(tokio::time::sleep(left));
        Self { io: Some(io), acceptor, input, out, failed: None, began, timer }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> StartHandshake<IO> {
    /// What the initiator says. Nobody has verified any of it.
    pub fn client_hello(&self) -> &ClientHello {
        self.accepted.client_hello()
    }

    /// Goes on with this configuration, as [`MlsAcceptor::accept`](crate::MlsAcceptor::accept) does.
    /// The time for the handshake counts from the beginning.
    ///
    /// # Errors
    ///
    /// As [`MlsAcceptor::accept`](crate::MlsAcceptor::accept).
    ///
    /// # Panics
    ///
    /// As [`LazyConfigAcceptor::new`].
    pub fn into_stream(self, config: Arc<Config>) -> Accept<IO> {
        let mut out = BytesMut::new();
        let limits = config.limits();
        let handshake = self.accepted.into_handshake(config, Time::now(), &mut out);
        let left = limits.handshake_timeout.saturating_sub(self.began.elapsed());
        Accept::begun(self.io, handshake, self.input, out, limits, left)
    }

    /// Refuses to resume a session that no configuration has, and waits for a ClientHello; see
    /// [`Accepted::decline_session`].
    ///
    /// # Errors
    ///
    /// As [`Accepted::decline_session`].
    pub fn decline_session(self) -> io::Result<LazyConfigAcceptor<IO>> {
        let Self { io, accepted, input, limits, began } = self;
        let mut out = BytesMut::new();
        let acceptor = accepted.decline_session(&mut out)?;
        Ok(LazyConfigAcceptor::waiting(io, acceptor, input, out, limits, began))
    }

    /// The transport. The initiator has not been answered.
    pub fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for LazyConfigAcceptor<IO> {
    type Output = io::Result<StartHandshake<IO>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let expired = this.timer.as_mut().poll(cx).is_ready();
        let Some(io) = &mut this.io else {
            return Poll::Ready(Err(io::Error::other("polled after completion")));
        };
        if expired && this.failed.is_none() {
            // The timer decides, whatever the clock says.
            let mut now = Time::now();
            now.monotonic = this.acceptor.poll_timeout().unwrap_or(now.monotonic);
            this.failed = this.acceptor.handle_timeout(now, &mut this.out).err();
        }
        loop {
            let sent = send(io, &mut this.out, cx);
            if let Some(error) = &this.failed {
                // The alert is worth the time that is left, not more.
                if sent.is_pending() && !expired {
                    return Poll::Pending;
                }
                return Poll::Ready(Err(error.clone().into()));
            }
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            let mut now = Time::now();
            // The time for this is measured by the timer.
            now.monotonic = now.monotonic.min(this.acceptor.started());
            match this.acceptor.handle_input(now, &mut this.input, &mut this.out) {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let Some(io) = this.io.take() else {
                        return Poll::Ready(Err(io::Error::other("polled after completion")));
                    };
                    let limits = accepted.limits();
                    let input = std::mem::take(&mut this.input);
                    let began = this.began;
                    return Poll::Ready(Ok(StartHandshake { io, accepted, input, limits, began }));
                }
                Err(error) => {
                    this.failed = Some(error);
                    continue;
                }
            }
            this.input.reserve(READ_SIZE);
            if ready!(poll_read_buf(Pin::new(&mut *io), cx, &mut this.input))? == 0 {
                this.failed = Some(this.acceptor.handle_eof());
            }
        }
    }
}

impl<IO> fmt::Debug for LazyConfigAcceptor<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor").finish_non_exhaustive()
    }
}

impl<IO> fmt::Debug for StartHandshake<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartHandshake")
            .field("client_hello", &self.accepted.client_hello())
            .finish_non_exhaustive()
    }
}
