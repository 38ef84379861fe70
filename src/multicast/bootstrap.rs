//! A universe is declared over legs (DM-03): one party invites, the others join.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    driver::{Expected, now},
    handle::Multicast,
    io::LegIo,
    options::MulticastOptions,
};
use crate::{
    config::Config,
    dmls::{
        DmlsInvitation, DmlsKeyPackages, DmlsPolicy, DmlsSession, MemberIndex,
        owner_of_key_packages,
    },
    error::{ConfigError, Error, PeerMisbehaved},
    identity::PublicKey,
    stream::MlsStream,
    wire::{DmlsMessageType, LEG_VERSION, LegFrame, LegHello, LegMessage, NO_MEMBER},
};

/// The place of the one who invites.
const INVITER: u16 = 0;

/// What a multicast is made of.
#[derive(Clone, Debug)]
pub struct MulticastConfig {
    config: Arc<Config>,
    policy: DmlsPolicy,
    options: MulticastOptions,
    leaf_replacement: bool,
}

impl MulticastConfig {
    /// The default policy and options, and a universe with leaf replacement.
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            policy: DmlsPolicy::default(),
            options: MulticastOptions::default(),
            leaf_replacement: true,
        }
    }

    /// Sets what the member does by itself.
    pub fn policy(mut self, policy: DmlsPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how legs are treated.
    pub fn options(mut self, options: MulticastOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets whether leaves are replaced in a universe to which this party invites; see
    /// [`DmlsUniverse::leaf_replacement`](crate::DmlsUniverse::leaf_replacement). Default: yes.
    pub fn leaf_replacement(mut self, leaf_replacement: bool) -> Self {
        self.leaf_replacement = leaf_replacement;
        self
    }

    /// Brings a universe together over raw legs with all the others, who become the members 1, 2, ...
    /// in this order; this party is member 0. The legs stay.
    ///
    /// It waits until everybody has sent KeyPackages, however long that takes; a leg that breaks until
    /// then is the end of it. A universe comes into being only if the authentication service believes
    /// all of them.
    ///
    /// # Errors
    ///
    /// An [`io::Error`], which may have an [`Error`] inside; see [`Error::from_io`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub async fn invite<IO>(&self, legs: Vec<IO>) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.invite_each(legs.into_iter().map(|leg| (None, leg)).collect()).await
    }

    /// The same over channels, whose peers have to be the members (MC-04).
    ///
    /// # Errors
    ///
    /// As [`MulticastConfig::invite`].
    ///
    /// # Panics
    ///
    /// As [`MulticastConfig::invite`].
    pub async fn invite_over_channels<IO>(
        &self,
        channels: Vec<MlsStream<IO>>,
    ) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let with_key =
            |channel: MlsStream<IO>| (Some(channel.peer().public_key().clone()), channel);
        self.invite_each(channels.into_iter().map(with_key).collect()).await
    }

    /// The same over a relay, to which the others have legs. `members` are their names, in order.
    ///
    /// # Errors
    ///
    /// As [`MulticastConfig::invite`].
    ///
    /// # Panics
    ///
    /// As [`MulticastConfig::invite`].
    pub async fn invite_through_relay<IO>(
        &self,
        relay: IO,
        members: &[impl AsRef<str>],
    ) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut leg = LegIo::new(relay, self.policy.max_frame_size);
        leg.write(&hello(INVITER)).await?;
        let mut relay_hello = None;
        let mut offers: BTreeMap<u16, Bytes> = BTreeMap::new();
        while offers.len() < members.len() || relay_hello.is_none() {
            match leg.read().await?.ok_or(Error::Truncated)? {
                LegMessage::Hello(hello) => relay_hello = Some(hello),
                LegMessage::Frame(LegFrame { origin, frame, .. }) => {
                    let expected =
                        usize::from(origin).checked_sub(1).and_then(|at| members.get(at));
                    let owner = owner_of_key_packages(&self.config, &self.policy, &frame, now());
                    // The relay is not trusted: what is no offer of this member is nothing.
                    if let (Some(expected), Ok(owner)) = (expected, owner)
                        && owner.name() == expected.as_ref()
                    {
                        offers.insert(origin, frame);
                    }
                }
                _ => return Err(Error::Truncated.into()),
            }
        }
        let session = self.begin(&offers.into_values().collect::<Vec<_>>())?;
        let multicast = Multicast::new(session, self.options);
        if let Some(hello) = relay_hello {
            multicast.attach_begun(Expected::Relay, None, leg, hello)?;
        }
        Ok(multicast)
    }

    /// Joins the universe to which the party at the other end of a raw leg invites. The leg stays;
    /// legs with the other members are added afterwards.
    ///
    /// # Errors
    ///
    /// An [`io::Error`], which may have an [`Error`] inside; see [`Error::from_io`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub async fn join<IO>(&self, leg: IO) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.join_over(leg, Expected::Member(INVITER), None, None).await
    }

    /// The same over a channel, whose peer has to be the one who invites.
    ///
    /// # Errors
    ///
    /// As [`MulticastConfig::join`].
    ///
    /// # Panics
    ///
    /// As [`MulticastConfig::join`].
    pub async fn join_over_channel<IO>(&self, channel: MlsStream<IO>) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let key = channel.peer().public_key().clone();
        self.join_over(channel, Expected::Member(INVITER), None, Some(key)).await
    }

    /// The same over a relay. `place` is this party's among the members, the one who invites being 0.
    ///
    /// # Errors
    ///
    /// As [`MulticastConfig::join`].
    ///
    /// # Panics
    ///
    /// As [`MulticastConfig::join`].
    pub async fn join_through_relay<IO>(
        &self,
        relay: IO,
        place: MemberIndex,
    ) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.join_over(relay, Expected::Relay, Some(place), None).await
    }

    async fn invite_each<IO>(&self, legs: Vec<(Option<PublicKey>, IO)>) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let gather = legs.into_iter().map(|(key, io)| async move {
            let mut leg = LegIo::new(io, self.policy.max_frame_size);
            leg.write(&hello(INVITER)).await?;
            loop {
                match leg.read().await?.ok_or(Error::Truncated)? {
                    LegMessage::Hello(hello) if hello.universe_id.is_empty() => {}
                    LegMessage::Frame(frame) => return io::Result::Ok((key, leg, frame.frame)),
                    LegMessage::Hello(_) => {
                        let what = "a leg of another one";
                        return Err(Error::from(PeerMisbehaved::UnexpectedUniverse(what)).into());
                    }
                    _ => return Err(Error::Truncated.into()),
                }
            }
        });
        let gathered = try_join_all(gather).await?;
        let offers: Vec<Bytes> = gathered.iter().map(|(_, _, offer)| offer.clone()).collect();
        let session = self.begin(&offers)?;
        for (place, (key, _, _)) in (1..).zip(&gathered) {
            let is_other = |key: &PublicKey| session.member_with(key) != Some(MemberIndex(place));
            if key.as_ref().is_some_and(is_other) {
                let what = "other members than its channels'";
                return Err(Error::from(PeerMisbehaved::UnexpectedUniverse(what)).into());
            }
        }
        let universe_id = session.universe_id().to_vec();
        let multicast = Multicast::new(session, self.options);
        for (place, (key, leg, _)) in (1..).zip(gathered) {
            // It has nothing yet, and will say so itself when it has joined.
            let hello = LegHello {
                version: LEG_VERSION,
                universe_id: universe_id.clone(),
                member: place,
                wanted: Vec::new(),
            };
            multicast.attach_begun(Expected::Member(place), key, leg, hello)?;
        }
        Ok(multicast)
    }

    fn begin(&self, offers: &[Bytes]) -> Result<DmlsSession, Error> {
        let now = now();
        let key_packages = DmlsKeyPackages::new(&self.config, now)?;
        let config = Arc::clone(&self.config);
        DmlsSession::invite(config, self.policy, offers, key_packages, self.leaf_replacement, now)
    }

    async fn join_over<IO>(
        &self,
        io: IO,
        over: Expected,
        place: Option<MemberIndex>,
        key: Option<PublicKey>,
    ) -> io::Result<Multicast>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if place == Some(MemberIndex(INVITER)) {
            let reason = "place 0 is that of the one who invites";
            return Err(Error::from(ConfigError::OutOfRange(reason)).into());
        }
        let mut leg = LegIo::new(io, self.policy.max_frame_size);
        let me = place.map_or(NO_MEMBER, |place| place.0);
        let key_packages = DmlsKeyPackages::new(&self.config, now())?;
        leg.write(&hello(me)).await?;
        let offer =
            LegFrame { origin: me, destination: INVITER, frame: key_packages.frame().clone() };
        leg.write(&LegMessage::Frame(offer)).await?;
        let invitation = DmlsInvitation::new(Arc::clone(&self.config), self.policy, key_packages)?;
        let (session, hello) = wait(&mut leg, invitation, over).await?;
        let inviter_is_other = |key| session.member_with(key) != Some(MemberIndex(INVITER));
        if key.as_ref().is_some_and(inviter_is_other) || place.is_some_and(|p| p != session.me()) {
            let what = "other members than expected";
            return Err(Error::from(PeerMisbehaved::UnexpectedUniverse(what)).into());
        }
        let multicast = Multicast::new(session, self.options);
        multicast.attach_begun(over, key, leg, hello)?;
        Ok(multicast)
    }
}

/// Waits for the Welcome and the declaration. Gives the last hello of the other end with the session.
async fn wait<IO: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut LegIo<IO>,
    mut invitation: DmlsInvitation,
    over: Expected,
) -> io::Result<(DmlsSession, LegHello)> {
    let mut hello = None;
    let mut is_welcome = false;
    loop {
        let frame = match leg.read().await?.ok_or(Error::Truncated)? {
            LegMessage::Hello(said) => {
                hello = Some(said);
                continue;
            }
            LegMessage::Frame(LegFrame { origin: INVITER, frame, .. }) => frame,
            LegMessage::Frame(_) => continue,
            _ => return Err(Error::Truncated.into()),
        };
        let first = frame.first().copied();
        let is = |message_type: DmlsMessageType| first == Some(message_type.into());
        if is(DmlsMessageType::Welcome) && !is_welcome {
            match invitation.handle_welcome(frame) {
                Ok(()) => is_welcome = true,
                // A relay may have one of an earlier universe.
                Err(_) if over == Expected::Relay => {}
                Err(error) => return Err(error.into()),
            }
        } else if is(DmlsMessageType::Universe) && is_welcome {
            let session = invitation.handle_universe(frame, now())?;
            let hello = hello.ok_or(Error::Truncated)?;
            return Ok((session, hello));
        }
    }
}

fn hello(member: u16) -> LegMessage {
    LegMessage::Hello(LegHello {
        version: LEG_VERSION,
        universe_id: Vec::new(),
        member,
        wanted: Vec::new(),
    })
}
