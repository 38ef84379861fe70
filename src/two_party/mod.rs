//! The two-party profile of MLS over the TLS 1.3 record layer, without any IO.
//!
//! A [`Connection`] is one end of a channel. It is a function of state, input and time: it owns no
//! socket, starts no task and reads no clock. What it has to send it appends to a buffer of the
//! caller's. [`crate::MlsStream`] is this machine with a socket.

mod client_hello;
mod established;
mod handshake;
mod key_packages;
mod receiver;
mod rekey;
mod resumption;
mod sender;
mod session;
mod shared;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use self::shared::Counter;
pub use self::{
    client_hello::{Accepted, Acceptor, ClientHello},
    key_packages::KeyPackages,
    shared::{EarlyDataStatus, HandshakeKind, Statistics},
};
pub(crate) use self::{
    established::Established,
    handshake::{Handshake, Progress},
    receiver::{Control, Incoming},
    sender::Sender,
    shared::{Counters, Shared},
};
#[cfg(feature = "tokio")]
pub(crate) use self::{
    receiver::{Front, KeyChange, Receiver},
    sender::Outcome,
};
use crate::{
    auth::{AuthenticationError, PeerIdentity, Role},
    config::Config,
    crypto::CipherSuite,
    error::{ApiMisuse, Error},
    group::Group,
    identity::Identity,
    name::ServerName,
    store::SessionId,
    time::Time,
};

/// One end of a channel, in either role, without IO.
///
/// The calls come in four kinds, and a driver needs nothing else:
///
/// - **from the network**: [`handle_input`](Self::handle_input) takes bytes that arrived,
///   [`handle_eof`](Self::handle_eof) the end of them, [`handle_timeout`](Self::handle_timeout) the
///   passing of time. After input, call `handle_input` until it returns `Ok(None)`.
/// - **from the application**: [`write`](Self::write), [`rekey`](Self::rekey),
///   [`close`](Self::close).
/// - **to the driver**: whatever is to be sent is appended to the `out` of each call, in order;
///   [`poll_timeout`](Self::poll_timeout) says when to call `handle_timeout`. Bytes that a call
///   appended must be sent even if the call returned an error: the alert is among them.
/// - **getters**: the rest.
///
/// An error is fatal and sticky, except for [`Error::ApiMisuse`], which changes nothing.
///
/// ```
/// # use std::sync::Arc;
/// # use bytes::BytesMut;
/// # use mls_channel::{Config, Connection, Event, Identity, PinnedKeys, ServerName, Time};
/// # fn main() -> Result<(), mls_channel::Error> {
/// # let client = Identity::generate("client")?;
/// # let server = Identity::generate("server")?;
/// # let config = |own: &Identity, other: &Identity| -> Result<_, mls_channel::Error> {
/// #     let pinned = PinnedKeys::parse(&other.public_line())?;
/// #     Ok(Arc::new(Config::builder().identity(own.clone()).authentication_service(pinned).build()?))
/// # };
/// let now = Time::now();
/// let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
/// let name = ServerName::new("server")?;
/// let mut a = Connection::initiator(config(&client, &server)?, name, now, &mut to_server)?;
/// let mut b = Connection::responder(config(&server, &client)?, now);
///
/// assert_eq!(b.handle_input(now, &mut to_server, &mut to_client)?, None); // ClientHello
/// let event = a.handle_input(now, &mut to_client, &mut to_server)?; // ServerHello
/// assert_eq!(event, Some(Event::HandshakeComplete));
/// a.write(b"hello", &mut to_server)?;
/// let event = b.handle_input(now, &mut to_server, &mut to_client)?; // confirmation
/// assert_eq!(event, Some(Event::HandshakeComplete));
/// let event = b.handle_input(now, &mut to_server, &mut to_client)?;
/// assert_eq!(event, Some(Event::Data(b"hello"[..].into())));
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    state: State,
}

enum State {
    Handshaking(Box<Handshake>),
    Established(Box<Traffic>),
    Failed(Error),
}

struct Traffic {
    established: Established,
    /// As it was when the last event was told.
    announced: Statistics,
}

/// What input led to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer is authenticated and has shown that it has the keys. Data may be written.
    HandshakeComplete,
    /// Early data that came with a request to resume, all of it (TL-08). It comes before
    /// [`Event::HandshakeComplete`]; its sender is the peer of the session, nobody else gets it
    /// delivered again, and it may have been held back on the way. The answer that says that it was
    /// accepted is in `out`: what must survive a crash is stored before that is sent.
    EarlyData(Bytes),
    /// Application data, in order; never empty.
    Data(Bytes),
    /// Records are sealed under a new epoch.
    EpochChanged {
        /// The epoch of the group now.
        epoch: u64,
    },
    /// This party is who it wanted to be with [`Connection::rotate_identity`] (2P-13).
    IdentityRotated,
    /// The peer does not accept the new identity: this party is who it was.
    RotationRefused,
    /// The peer has changed its identity, and the authentication service has accepted that.
    PeerIdentityChanged(PeerIdentity),
    /// The peer wanted to change its identity, and the authentication service has refused that for this
    /// reason. The peer is who it was.
    PeerIdentityRefused(AuthenticationError),
    /// The peer will send no more data. Data can still be written (CH-04).
    PeerClosed,
}

impl Connection {
    /// Starts as the initiator. What goes first is appended to `out`: a request to resume if the
    /// configuration has a store with a session that can be, and a ClientHello otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] when the cryptographic provider fails, [`Error::Store`] when the session
    /// store does.
    pub fn initiator(
        config: Arc<Config>,
        server_name: ServerName,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        Ok(Self::handshaking(Handshake::initiate(config, server_name, None, None, now, out)?))
    }

    /// As [`Connection::initiator`], with a KeyPackage that was made before, if there is one for this
    /// server.
    ///
    /// # Errors
    ///
    /// As [`Connection::initiator`].
    pub fn initiator_with_key_packages(
        key_packages: &KeyPackages,
        server_name: ServerName,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let config = Arc::clone(key_packages.config());
        let made = Some(key_packages);
        Ok(Self::handshaking(Handshake::initiate(config, server_name, None, made, now, out)?))
    }

    /// As [`Connection::initiator`], with data that goes along with a request to resume (TL-08). What
    /// becomes of it says [`Connection::early_data`].
    ///
    /// # Errors
    ///
    /// As [`Connection::initiator`], and [`ApiMisuse::EarlyDataTooLong`].
    pub fn initiator_with_early_data(
        config: Arc<Config>,
        server_name: ServerName,
        early_data: &[u8],
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let handshake = Handshake::initiate(config, server_name, Some(early_data), None, now, out)?;
        Ok(Self::handshaking(handshake))
    }

    /// Starts as the initiator with the request to resume a certain session, which this party may
    /// have begun in either role (2P-14). Connections that use it are given up. If the peer refuses,
    /// there is no full handshake.
    ///
    /// # Errors
    ///
    /// [`Error::Session`] when there is no such session or it has come to its end,
    /// [`Error::PeerNotTrusted`] when the peer has come to its, [`Error::Store`] when the session
    /// store fails, [`ApiMisuse::EarlyDataTooLong`].
    pub fn resume(
        config: Arc<Config>,
        session: &SessionId,
        early_data: Option<&[u8]>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        Ok(Self::handshaking(Handshake::resume(config, session, early_data, now, out)?))
    }

    fn handshaking(handshake: Handshake) -> Self {
        Self { state: State::Handshaking(Box::new(handshake)) }
    }

    /// Waits for a ClientHello, or a request to resume, as the responder.
    pub fn responder(config: Arc<Config>, now: Time) -> Self {
        Self::handshaking(Handshake::respond(config, now))
    }

    /// Takes whole records off the front of `input` until there is something to tell. `Ok(None)`:
    /// more input is needed; what is left in `input` is the beginning of a record.
    ///
    /// # Errors
    ///
    /// Whatever the peer did wrong. The alert for it is in `out`.
    pub fn handle_input(
        &mut self,
        now: Time,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Event>, Error> {
        match &mut self.state {
            State::Handshaking(handshake) => match handshake.handle_input(now, input, out) {
                Ok(Progress::NeedsInput) => Ok(None),
                Ok(Progress::EarlyData(data)) => Ok(Some(Event::EarlyData(data))),
                Ok(Progress::Established(established)) => {
                    let announced = established.shared.statistics();
                    let traffic = Traffic { established: *established, announced };
                    self.state = State::Established(Box::new(traffic));
                    Ok(Some(Event::HandshakeComplete))
                }
                Err(error) => Err(self.fail(error)),
            },
            State::Established(traffic) => {
                traffic.handle_input(now, input, out).map_err(|error| self.fail(error))
            }
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// The stream ended.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] unless the peer has closed before.
    pub fn handle_eof(&mut self) -> Result<(), Error> {
        let result = match &self.state {
            State::Handshaking(handshake) => Err(handshake.handle_eof()),
            State::Established(traffic) => traffic.established.receiver.handle_eof(),
            State::Failed(error) => Err(error.clone()),
        };
        result.map_err(|error| self.fail(error))
    }

    /// Time has passed. Early calls do nothing.
    ///
    /// # Errors
    ///
    /// [`Error::HandshakeTimeout`], [`Error::PeerNotTrusted`] when the peer is
    /// [revisited](crate::ConfigBuilder::revisit_interval), and what an update can fail with.
    pub fn handle_timeout(&mut self, now: Time, out: &mut BytesMut) -> Result<(), Error> {
        let result = match &mut self.state {
            State::Handshaking(handshake) => handshake.handle_timeout(now, out),
            State::Established(traffic) => traffic.established.sender.handle_timeout(now, out),
            State::Failed(error) => Err(error.clone()),
        };
        result.map_err(|error| self.fail(error))
    }

    /// Seals all of `data` and appends the records to `out`.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::HandshakeNotComplete`], [`ApiMisuse::Closed`], [`Error::KeyExhausted`].
    pub fn write(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let sender = self.sender()?;
        let result = sender.write(data, out).and_then(|()| sender.poll_update(out));
        result.map_err(|error| self.fail(error))
    }

    /// Asks for an update of this party's keys (CH-06). If one is outstanding, another follows it.
    /// It is in use in both directions when [`Statistics::own_updates`] reaches the returned
    /// number.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::HandshakeNotComplete`], [`ApiMisuse::Closed`].
    pub fn rekey(&mut self, out: &mut BytesMut) -> Result<u64, Error> {
        let sender = self.sender()?;
        let result = sender.request_update().and_then(|ticket| {
            sender.poll_update(out)?;
            Ok(ticket)
        });
        result.map_err(|error| self.fail(error))
    }

    /// Changes who this party is, without a new connection (2P-13). `next` has another name or another
    /// key, or both; its key has to be of the cipher suite's signature scheme.
    ///
    /// The peer's authentication service decides. [`Event::IdentityRotated`] or
    /// [`Event::RotationRefused`] says how; until then this party is who it was, and in the second case
    /// it stays that and the channel goes on. The change comes with an update of this party's keys. If
    /// that crosses one of the peer's, it is made again by itself.
    ///
    /// If the connection ends before the peer has decided, the change may take place when the session is
    /// resumed, or not at all: ask [`Connection::identity`] then.
    ///
    /// This connection and its session have the new identity from then on, when it is resumed, too. The
    /// configuration and its other connections do not: for those make a new one, with
    /// [`ConfigBuilder::former_identity`](crate::ConfigBuilder::former_identity) if sessions are stored.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::HandshakeNotComplete`], [`ApiMisuse::Closed`],
    /// [`ApiMisuse::RotationOutstanding`] while the peer has not decided about the last one,
    /// [`ApiMisuse::SignatureScheme`], [`ApiMisuse::PeersKey`].
    pub fn rotate_identity(&mut self, next: Identity, out: &mut BytesMut) -> Result<(), Error> {
        let sender = self.sender()?;
        let result = sender.request_rotation(next).and_then(|_| sender.poll_update(out));
        result.map_err(|error| self.fail(error))
    }

    /// Says that this party sends no more data. It still receives, and takes part in rekeys.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::HandshakeNotComplete`].
    pub fn close(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        let result = self.sender()?.close(out);
        result.map_err(|error| self.fail(error))
    }

    /// Both directions are closed and nothing is on its way any more that this end or its peer waits
    /// for. A transport that is dropped earlier may lose what the peer has not received yet.
    pub fn is_closed(&self) -> bool {
        self.established().is_ok_and(|Established { sender, receiver, .. }| {
            sender.is_closed()
                && receiver.is_closed()
                && !sender.is_lingering()
                && !receiver.expects_switch()
        })
    }

    /// When to call [`Connection::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Handshaking(handshake) => Some(handshake.deadline()),
            State::Established(traffic) => traffic.established.sender.timeout(),
            State::Failed(_) => None,
        }
    }

    /// A secret that both ends, and nobody else, can derive from the current epoch (RFC 9420,
    /// section 8.5). Both ends must be in the same epoch: compare [`Statistics::epoch`].
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Exporter`] for a label that begins with `MLS-TLS `, a length of zero or above
    /// 255 hash lengths; [`ApiMisuse::HandshakeNotComplete`].
    pub fn export_secret(
        &self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.established()?.sender.export_secret(label, context, length)
    }

    /// Whose end this is.
    pub fn role(&self) -> Option<Role> {
        Some(self.shared()?.info.role)
    }

    /// Who this party is on this connection.
    pub fn identity(&self) -> Option<&Identity> {
        Some(self.established().ok()?.sender.identity())
    }

    /// Who the peer is. `None` before the handshake is complete, as with all that follow.
    pub fn peer(&self) -> Option<PeerIdentity> {
        Some(self.shared()?.peer())
    }

    /// The cipher suite.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        Some(self.shared()?.info.suite)
    }

    /// The application protocol that was selected, if any.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.shared()?.info.alpn.as_deref()
    }

    /// The name of the service that the initiator asked for.
    pub fn server_name(&self) -> Option<&ServerName> {
        self.shared()?.info.server_name.as_ref()
    }

    /// A value that is the same at both ends of this connection and at no other (RFC 5056). It
    /// comes from the first epoch and never changes.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        Some(self.shared()?.info.channel_binding)
    }

    /// How the connection began.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        Some(self.shared()?.info.kind)
    }

    /// Why a full handshake took place although a session was stored.
    pub fn not_resumed(&self) -> Option<&Error> {
        self.shared()?.info.not_resumed.as_ref()
    }

    /// What became of the early data that was given to the handshake. `None` if none was.
    pub fn early_data(&self) -> Option<EarlyDataStatus> {
        self.shared()?.info.early_data
    }

    /// The name of the session, if it is stored and can be resumed.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.shared()?.info.session_id.as_ref()
    }

    /// Counters since the handshake.
    pub fn statistics(&self) -> Option<Statistics> {
        Some(self.shared()?.statistics())
    }

    fn established(&self) -> Result<&Established, Error> {
        match &self.state {
            State::Handshaking(_) => Err(ApiMisuse::HandshakeNotComplete.into()),
            State::Established(traffic) => Ok(&traffic.established),
            State::Failed(error) => Err(error.clone()),
        }
    }

    fn sender(&mut self) -> Result<&mut Sender, Error> {
        match &mut self.state {
            State::Handshaking(_) => Err(ApiMisuse::HandshakeNotComplete.into()),
            State::Established(traffic) => Ok(&mut traffic.established.sender),
            State::Failed(error) => Err(error.clone()),
        }
    }

    fn shared(&self) -> Option<&Shared> {
        self.established().ok().map(|established| &*established.shared)
    }

    fn fail(&mut self, error: Error) -> Error {
        if !matches!(error, Error::ApiMisuse(_)) {
            self.state = State::Failed(error.clone());
        }
        error
    }

    /// The group, once there is one.
    pub(crate) fn group_mut(&mut self) -> Option<&mut Group> {
        match &mut self.state {
            State::Established(traffic) => Some(traffic.established.sender.group_mut()),
            State::Handshaking(_) | State::Failed(_) => None,
        }
    }
}

impl Traffic {
    fn handle_input(
        &mut self,
        now: Time,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Event>, Error> {
        let Established { sender, receiver, shared, early, .. } = &mut self.established;
        loop {
            if let Some(event) = news(&mut self.announced, shared, sender) {
                return Ok(Some(event));
            }
            let incoming = match early.take() {
                Some(incoming) => Ok(Some(incoming)),
                None => receiver.next(input),
            };
            let control = match incoming {
                Ok(None) => return Ok(None),
                Ok(Some(Incoming::Data(data))) => return Ok(Some(Event::Data(data.freeze()))),
                Ok(Some(Incoming::Control(control))) => control,
                Err(error) => Control::Failure(error),
            };
            let closed = matches!(control, Control::PeerClosed);
            if let Some(change) = sender.handle(control, now, out)? {
                receiver.apply(change);
            }
            if closed {
                return Ok(Some(Event::PeerClosed));
            }
        }
    }
}

/// What the last record changed besides the application's data. One record changes each only once.
fn news(announced: &mut Statistics, shared: &Shared, sender: &mut Sender) -> Option<Event> {
    let Counters { epoch, rotations, refused_rotations, .. } = &shared.counters;
    let Counters { peer_rotations, refused_peer_rotations, .. } = &shared.counters;
    let changed = |counter: &Counter, announced: &mut u64| {
        std::mem::replace(announced, counter.value()) != counter.value()
    };
    Some(if changed(epoch, &mut announced.epoch) {
        Event::EpochChanged { epoch: announced.epoch }
    } else if changed(rotations, &mut announced.rotations) {
        Event::IdentityRotated
    } else if changed(refused_rotations, &mut announced.refused_rotations) {
        Event::RotationRefused
    } else if changed(peer_rotations, &mut announced.peer_rotations) {
        Event::PeerIdentityChanged(shared.peer())
    } else if changed(refused_peer_rotations, &mut announced.refused_peer_rotations) {
        Event::PeerIdentityRefused(sender.take_refusal()?)
    } else {
        return None;
    })
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Handshaking(_) => "handshaking",
            State::Established(_) => "established",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Connection")
            .field("state", &state)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
