//! The tokio adapters over the sans-IO machine: connecting, accepting, streams and their halves.

mod framed;
mod handshake;
mod io;
mod lazy;
mod listener;
mod read_side;
mod scratch;
mod split;
mod wake;
mod write_side;

pub use framed::MlsFramed;
pub use handshake::{Accept, Connect, MlsAcceptor, MlsConnector};
pub use io::MlsStream;
pub use lazy::{LazyConfigAcceptor, StartHandshake};
pub use listener::MlsListener;
pub use split::{IntoSplit, OwnedReadHalf, OwnedWriteHalf};
