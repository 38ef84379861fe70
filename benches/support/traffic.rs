//! Traffic over any pair of streams, the same for a channel and for its peers.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::Result;

/// How much the receiving end asks for at once.
const READ_SIZE: usize = 64 * 1024;

/// Two ends of a connection over loopback, without Nagle's algorithm.
pub(crate) async fn tcp_pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (near, (far, _)) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Sends `total` bytes in writes of `write_size` from one task to another, and gives the streams
/// back when the last byte has been read.
pub(crate) async fn bulk<W, R>(
    mut writer: W,
    mut reader: R,
    write_size: usize,
    total: usize,
) -> Result<(W, R)>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    let sending = tokio::spawn(async move {
        let data = vec![0x5a; write_size];
        let mut left = total;
        while left > 0 {
            let length = left.min(write_size);
            writer.write_all(&data[..length]).await?;
            left -= length;
        }
        writer.flush().await?;
        io::Result::Ok(writer)
    });
    let receiving = tokio::spawn(async move {
        let mut buffer = vec![0; READ_SIZE];
        let mut left = total;
        while left > 0 {
            let room = left.min(READ_SIZE);
            match reader.read(&mut buffer[..room]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                length => left -= length,
            }
        }
        io::Result::Ok(reader)
    });
    Ok((sending.await??, receiving.await??))
}

/// Sends `size` bytes there and back, `rounds` times, and gives the streams back.
pub(crate) async fn echo<A, B>(mut near: A, mut far: B, size: usize, rounds: u64) -> Result<(A, B)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let echoing = tokio::spawn(async move {
        let mut message = vec![0; size];
        for _ in 0..rounds {
            far.read_exact(&mut message).await?;
            far.write_all(&message).await?;
            far.flush().await?;
        }
        io::Result::Ok(far)
    });
    let mut message = vec![0x5a; size];
    for _ in 0..rounds {
        near.write_all(&message).await?;
        near.flush().await?;
        near.read_exact(&mut message).await?;
    }
    Ok((near, echoing.await??))
}
