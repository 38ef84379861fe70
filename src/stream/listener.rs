//! [`MlsListener`]: accepts connections and performs their handshakes concurrently.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::JoinSet,
};

use super::{handshake::MlsAcceptor, io::MlsStream};

/// Handshakes in flight unless configured otherwise.
const DEFAULT_MAX_HANDSHAKES: usize = 1024;

/// A TCP listener that gives established channels (CH-09).
///
/// Every handshake runs in a task of its own, so a peer that is slow, silent or malicious delays
/// nobody; it is dropped after [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). Only
/// so many handshakes run at once: above that, connections wait in the backlog of the operating
/// system. Nagle's algorithm is switched off.
///
/// Handshakes that fail are counted and otherwise forgotten; [`MlsListener::on_failure`] sees them.
pub struct MlsListener {
    listener: TcpListener,
    acceptor: MlsAcceptor,
    handshakes: JoinSet<Option<(MlsStream<TcpStream>, SocketAddr)>>,
    max_handshakes: usize,
    failures: Arc<Failures>,
}

struct Failures {
    count: AtomicU64,
    observer: Box<Observer>,
}

type Observer = dyn Fn(SocketAddr, &io::Error) + Send + Sync;

impl MlsListener {
    /// Binds a TCP socket.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`].
    pub async fn bind(address: impl ToSocketAddrs, acceptor: MlsAcceptor) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, acceptor))
    }

    /// Uses a socket that is bound already.
    pub fn new(listener: TcpListener, acceptor: MlsAcceptor) -> Self {
        Self {
            listener,
            acceptor,
            handshakes: JoinSet::new(),
            max_handshakes: DEFAULT_MAX_HANDSHAKES,
            failures: Arc::new(Failures {
                count: AtomicU64::new(0),
                observer: Box::new(|_, _| {}),
            }),
        }
    }

    /// Sets how many handshakes may be in flight, finished ones that were not accepted yet among
    /// them. Default: 1024. At least 1.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.max_handshakes = handshakes.max(1);
        self
    }

    /// Sets a function that is told why a handshake failed. It runs in the handshake's task.
    pub fn on_failure(
        mut self,
        observer: impl Fn(SocketAddr, &io::Error) + Send + Sync + 'static,
    ) -> Self {
        let count = AtomicU64::new(self.failures.count.load(Relaxed));
        self.failures = Arc::new(Failures { count, observer: Box::new(observer) });
        self
    }

    /// The next established channel, in the order in which handshakes finish.
    ///
    /// Cancel-safe. New connections are taken only while this future is polled; handshakes that
    /// have begun go on by themselves.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::accept`], such as a lack of file descriptors. The listener stays
    /// usable.
    pub async fn accept(&mut self) -> io::Result<(MlsStream<TcpStream>, SocketAddr)> {
        loop {
            let room = self.handshakes.len() < self.max_handshakes;
            tokio::select! {
                biased;
                Some(finished) = self.handshakes.join_next() => {
                    // A panic in the observer or the authentication service ends its task only.
                    if let Ok(Some(accepted)) = finished {
                        return Ok(accepted);
                    }
                }
                accepted = self.listener.accept(), if room => {
                    match accepted {
                        Ok((stream, address)) => self.start(stream, address),
                        Err(error) if is_of_connection(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    fn start(&mut self, stream: TcpStream, address: SocketAddr) {
        let acceptor = self.acceptor.clone();
        let failures = Arc::clone(&self.failures);
        self.handshakes.spawn(async move {
            let result = match stream.set_nodelay(true) {
                Ok(()) => acceptor.accept(stream).await,
                Err(error) => Err(error),
            };
            result
                .inspect_err(|error| {
                    failures.count.fetch_add(1, Relaxed);
                    (failures.observer)(address, error);
                })
                .ok()
                .map(|stream| (stream, address))
        });
    }

    /// Handshakes in flight, finished ones that were not accepted yet among them.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// Handshakes that failed so far.
    pub fn failures(&self) -> u64 {
        self.failures.count.load(Relaxed)
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An error that concerns one connection that never came to be, not the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

impl fmt::Debug for MlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlsListener")
            .field("listener", &self.listener)
            .field("handshakes", &self.handshakes.len())
            .field("failures", &self.failures())
            .finish_non_exhaustive()
    }
}
