//! [`MlsFramed`]: a channel as a `Sink` and a `Stream` of [`Bytes`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, Stream};
use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{io::MlsStream, wake::Side};

/// A `Stream` of the data of one record each, and a `Sink` of data (CH-01).
///
/// Received data is handed out where it was decrypted, without a copy. Boundaries are not kept:
/// what is sent as one item arrives as one item only if it fits a record (16384 bytes) and is not
/// empty. For messages with boundaries put a codec such as
/// [`LengthDelimitedCodec`](tokio_util::codec::LengthDelimitedCodec) over the [`MlsStream`].
#[pin_project]
#[derive(Debug)]
pub struct MlsFramed<IO> {
    stream: MlsStream<IO>,
    ended: bool,
}

impl<IO> MlsFramed<IO> {
    /// Wraps a stream.
    pub fn new(stream: MlsStream<IO>) -> Self {
        Self { stream, ended: false }
    }

    /// The stream.
    pub fn get_ref(&self) -> &MlsStream<IO> {
        &self.stream
    }

    /// The stream.
    pub fn get_mut(&mut self) -> &mut MlsStream<IO> {
        &mut self.stream
    }

    /// The stream, with all that it has buffered.
    pub fn into_inner(self) -> MlsStream<IO> {
        self.stream
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream for MlsFramed<IO> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        let item = ready!(this.stream.poll_bytes(cx)).transpose();
        // After an error there is nothing more: the channel is dead.
        *this.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for MlsFramed<IO> {
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.project().stream;
        stream.write.sender.check_open()?;
        stream.write.check_broken()?;
        if stream.write.has_room() {
            return Poll::Ready(Ok(()));
        }
        stream.write.poll_drain(&mut stream.io, &stream.writing, Side::Owner, cx)
    }

    fn start_send(self: Pin<&mut Self>, item: Bytes) -> io::Result<()> {
        self.project().stream.write.seal_all(&item)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.project().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.project().stream).poll_shutdown(cx)
    }
}
