//! Transports that come apart.

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Join, ReadHalf, WriteHalf},
    net::{TcpStream, tcp},
};

use super::{super::io::MlsStream, IntoSplit, OwnedReadHalf, OwnedWriteHalf};

impl IntoSplit for TcpStream {
    type ReadHalf = tcp::OwnedReadHalf;
    type WriteHalf = tcp::OwnedWriteHalf;

    fn into_split(self) -> (tcp::OwnedReadHalf, tcp::OwnedWriteHalf) {
        self.into_split()
    }
}

#[cfg(unix)]
impl IntoSplit for tokio::net::UnixStream {
    type ReadHalf = tokio::net::unix::OwnedReadHalf;
    type WriteHalf = tokio::net::unix::OwnedWriteHalf;

    fn into_split(self) -> (Self::ReadHalf, Self::WriteHalf) {
        self.into_split()
    }
}

/// For tests: an in-memory pipe has locks of its own.
impl IntoSplit for DuplexStream {
    type ReadHalf = ReadHalf<Self>;
    type WriteHalf = WriteHalf<Self>;

    fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> IntoSplit for Join<R, W> {
    type ReadHalf = R;
    type WriteHalf = W;

    fn into_split(self) -> (R, W) {
        self.into_inner()
    }
}

impl<IO: IntoSplit> IntoSplit for MlsStream<IO> {
    type ReadHalf = OwnedReadHalf<IO>;
    type WriteHalf = OwnedWriteHalf<IO>;

    fn into_split(self) -> (OwnedReadHalf<IO>, OwnedWriteHalf<IO>) {
        self.into_split()
    }
}
