//! [`Multicast`] and its halves.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    driver::{
        Attach, Control, Driver, EVENT_COST, Ends, Expected, FromLeg, Outcome, Send as Sending,
    },
    io::LegIo,
    options::{Backoff, LegEnd, MulticastEvent, MulticastOptions},
    queue::Gauge,
};
use crate::{
    auth::PeerIdentity,
    dmls::{DmlsSession, MemberIndex},
    error::{ApiMisuse, Error},
    identity::PublicKey,
    stream::MlsStream,
    time::Time,
    wire::LegHello,
};

/// As good as no limit.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// A member of a universe, over any number of streams (MC-01): a [`Sink`](futures::Sink) of messages for
/// all, and a [`Stream`](futures::Stream) of what they send and of what happens.
///
/// ```text
///    send, Sink                 Stream: messages, events
///        │                          ▲
///   ┌────▼──────────────────────────┴───┐
///   │ one task: DmlsSession, its timers │   protects once
///   └────┬──────────┬──────────┬────────┘
///      queue      queue      queue           the same Bytes
///   ┌────▼────┐┌────▼────┐┌────▼────┐
///   │  a leg  ││  a leg  ││  a leg  │        a task each
///   └────┬────┘└────┬────┘└────┬────┘
///       TCP     MlsStream    relay
/// ```
///
/// A *leg* is a stream to another member, or to a [`Relay`](super::Relay). Each end begins by saying
/// what it has from whom, and is sent the rest; so a leg may break at any time, and a new one with the
/// same member goes on where it was (MC-03). Until then the session keeps what that member lacks. A
/// member may have several legs, directly and over relays: what comes twice is taken once.
///
/// On raw streams everything that matters is protected by MLS, but anybody on the way can cut them, and
/// sees who sends how much. Whoever can connect to a raw leg can claim to be any member: what it sends
/// is thrown away when it turns out to be forged, but it is sent a copy of what only members can read, and
/// takes one of the four places for legs with that member. Over [`MlsStream`]s none of this is so, and
/// a member that breaks the rules is [`Refused`](crate::DmlsEvent::Refused) instead of
/// [`Discarded`](crate::DmlsEvent::Discarded) and asked again.
///
/// A transport that dies without saying so, as TCP does when a cable is cut, is noticed when something is
/// written to it, or not at all, unless [`MulticastOptions::keep_alive_interval`] is set.
///
/// Dropping it, both halves, breaks the legs off; [`Multicast::leave`] says goodbye. Events have to be
/// taken: see [`MulticastOptions::event_queue`].
pub struct Multicast {
    pub(super) sender: MulticastSender,
    pub(super) receiver: MulticastReceiver,
}

/// The sending half of a [`Multicast`], which can be cloned.
pub struct MulticastSender {
    pub(super) sends: mpsc::UnboundedSender<Sending>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) controls: mpsc::UnboundedSender<Control>,
    /// Closed when the task has ended.
    from_legs: mpsc::UnboundedSender<FromLeg>,
    options: MulticastOptions,
    max_frame_size: usize,
    me: MemberIndex,
    universe_id: Bytes,
    /// What became of messages that went into the sink.
    pub(super) failure: Arc<Mutex<Option<Error>>>,
    /// Comes back when what was sent before it has been protected.
    pub(super) flush: Option<oneshot::Receiver<()>>,
    pub(super) left: Option<oneshot::Receiver<()>>,
}

/// The receiving half of a [`Multicast`].
pub struct MulticastReceiver {
    pub(super) events: mpsc::UnboundedReceiver<Result<MulticastEvent, Error>>,
    gauge: Arc<Gauge>,
    /// Who only receives is there, too.
    _controls: mpsc::UnboundedSender<Control>,
}

impl Multicast {
    /// Brings a session to tokio. Legs are added afterwards.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub fn new(session: DmlsSession, options: MulticastOptions) -> Self {
        let (me, universe_id) = (session.me(), Bytes::copy_from_slice(session.universe_id()));
        let max_frame_size = session.max_frame_size();
        let (driver, ends) = Driver::new(session, options);
        let Ends { sends, send_gauge, controls, from_legs, events, event_gauge } = ends;
        tokio::spawn(driver.run());
        let receiver =
            MulticastReceiver { events, gauge: event_gauge, _controls: controls.clone() };
        let sender = MulticastSender {
            sends,
            gauge: send_gauge,
            controls,
            from_legs,
            options,
            max_frame_size,
            me,
            universe_id,
            failure: Arc::default(),
            flush: None,
            left: None,
        };
        Self { sender, receiver }
    }

    /// The halves, for two tasks.
    pub fn into_split(self) -> (MulticastSender, MulticastReceiver) {
        (self.sender, self.receiver)
    }

    /// Another handle for sending, for other tasks.
    pub fn sender(&self) -> MulticastSender {
        self.sender.clone()
    }

    /// Leaves: see [`MulticastSender::leave`]. Events that come meanwhile are thrown away.
    pub async fn leave(self) {
        let Self { sender, mut receiver } = self;
        let mut leave = Box::pin(sender.leave());
        loop {
            tokio::select! {
                () = &mut leave => return,
                Some(_) = receiver.next_event() => {}
            }
        }
    }

    /// Sends a message to all: see [`MulticastSender::send`].
    ///
    /// # Errors
    ///
    /// Those of [`MulticastSender::send`].
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.sender.send(data).await
    }

    /// The next message or event; `None` after the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Once, what the session has failed of.
    pub async fn next_event(&mut self) -> Option<Result<MulticastEvent, Error>> {
        self.receiver.next_event().await
    }
}

impl std::ops::Deref for Multicast {
    type Target = MulticastSender;

    fn deref(&self) -> &MulticastSender {
        &self.sender
    }
}

impl MulticastSender {
    /// Protects a message and puts it into the queues of all legs. Members without a leg get it when
    /// they have one.
    ///
    /// Messages that wait together, from several tasks or out of the sink, go into one frame under one
    /// signature; none waits for others.
    ///
    /// Dropping the future at the first `await` sends nothing; later the message is sent all the same.
    ///
    /// # Errors
    ///
    /// Those of [`DmlsSession::protect`]; [`ApiMisuse::SlowLeg`] if
    /// [`SlowLeg::Error`](super::SlowLeg::Error) was asked for; [`ApiMisuse::Closed`] after the end.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        let data = data.into();
        self.gauge.room().await;
        let (reply, result) = oneshot::channel();
        self.queue(data, Outcome::Reply(reply))?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Renews this party's keys (DM-04); see [`DmlsSession::update`].
    ///
    /// # Errors
    ///
    /// Those of [`DmlsSession::update`]; [`ApiMisuse::Closed`] after the end.
    pub async fn update(&self) -> Result<(), Error> {
        self.run(DmlsSession::update).await?
    }

    /// Incorporates the updates of others (DM-05); see [`DmlsSession::commit`].
    ///
    /// # Errors
    ///
    /// As [`MulticastSender::update`].
    pub async fn commit(&self) -> Result<bool, Error> {
        self.run(DmlsSession::commit).await?
    }

    /// Both in one commit (DM-08); see [`DmlsSession::update_and_commit`].
    ///
    /// # Errors
    ///
    /// As [`MulticastSender::update`].
    pub async fn update_and_commit(&self) -> Result<(), Error> {
        self.run(DmlsSession::update_and_commit).await?
    }

    /// Removes a member (DM-12); see [`DmlsSession::remove`].
    ///
    /// # Errors
    ///
    /// Those of [`DmlsSession::remove`]; [`ApiMisuse::Closed`] after the end.
    pub async fn remove(&self, member: MemberIndex) -> Result<(), Error> {
        self.run(move |session, now| session.remove(now, member)).await?
    }

    /// The members that have not been removed, this party included.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Closed`] after the end.
    pub async fn members(&self) -> Result<Vec<(MemberIndex, PeerIdentity)>, Error> {
        let members = |session: &mut DmlsSession, _| {
            session.members().map(|(index, identity)| (index, identity.clone())).collect()
        };
        self.run(members).await
    }

    /// The epoch in which a member's Send Group is here.
    ///
    /// # Errors
    ///
    /// As [`MulticastSender::members`].
    pub async fn epoch(&self, member: MemberIndex) -> Result<Option<u64>, Error> {
        self.run(move |session, _| session.epoch(member)).await
    }

    /// The newest own update that a member is known to have (DM-11).
    ///
    /// # Errors
    ///
    /// As [`MulticastSender::members`].
    pub async fn acknowledged(&self, member: MemberIndex) -> Result<u64, Error> {
        self.run(move |session, _| session.acknowledged(member)).await
    }

    /// This party's place in the universe.
    pub fn me(&self) -> MemberIndex {
        self.me
    }

    /// The ID of the universe.
    pub fn universe_id(&self) -> &[u8] {
        &self.universe_id
    }

    /// Adds a raw leg with a member.
    ///
    /// That it is up, and that it ends, is among the events. There are at most four with one member.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Closed`] after the end.
    pub fn add_leg<IO>(&self, member: MemberIndex, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.attach(Expected::Member(member.0), io, None)
    }

    /// Adds a raw leg with a member that says itself which one it is, as one that was accepted.
    ///
    /// # Errors
    ///
    /// As [`MulticastSender::add_leg`].
    pub fn accept_leg<IO>(&self, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.attach(Expected::AnyMember, io, None)
    }

    /// Adds a leg over a channel. Its peer has to be a member, and that one's leg it is (MC-04).
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::UnknownMember`] if it is no member; [`ApiMisuse::Closed`] after the end.
    pub async fn add_channel<IO>(&self, channel: MlsStream<IO>) -> Result<MemberIndex, Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let key = channel.peer().public_key().clone();
        let wanted = key.clone();
        let member = self.run(move |session, _| session.member_with(&wanted)).await?;
        let member = member.filter(|member| *member != self.me).ok_or(ApiMisuse::UnknownMember)?;
        self.attach(Expected::Member(member.0), channel, Some(key))?;
        Ok(member)
    }

    /// Adds a leg to a relay (MC-05), raw or a channel. There are at most four to relays.
    ///
    /// # Errors
    ///
    /// As [`MulticastSender::add_leg`].
    pub fn add_relay<IO>(&self, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.attach(Expected::Relay, io, None)
    }

    /// Keeps a leg with a member: `connect` is called now, and again whenever the leg has ended, with
    /// pauses in between, until the member says goodbye or this party is gone.
    pub fn keep_leg<C, F, IO>(&self, member: MemberIndex, backoff: Backoff, connect: C)
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = std::io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.keep(Expected::Member(member.0), backoff, connect, |_| None);
    }

    /// The same over channels, whose peer has to be the member (MC-04).
    pub fn keep_channel<C, F, IO>(&self, member: MemberIndex, backoff: Backoff, connect: C)
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = std::io::Result<MlsStream<IO>>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let key = |channel: &MlsStream<IO>| Some(channel.peer().public_key().clone());
        self.keep(Expected::Member(member.0), backoff, connect, key);
    }

    /// The same with a relay.
    pub fn keep_relay<C, F, IO>(&self, backoff: Backoff, connect: C)
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = std::io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.keep(Expected::Relay, backoff, connect, |_| None);
    }

    /// Leaves: writes what there is to each leg, says goodbye, and waits for the goodbyes of the others,
    /// in all for [`MulticastOptions::goodbye_timeout`] at most.
    ///
    /// The others see that it was no accident. To them this party stays a member, whom they may remove.
    pub async fn leave(self) {
        // It is gone either way.
        let _ = self.begin_to_leave().await;
    }

    /// Gives what tells of the end.
    pub(super) fn begin_to_leave(&self) -> oneshot::Receiver<()> {
        let deadline = Instant::now() + self.options.goodbye_timeout.min(NEVER);
        let (reply, left) = oneshot::channel();
        let _ = self.controls.send(Control::Leave(deadline, reply));
        left
    }

    fn attach<IO>(&self, expected: Expected, io: IO, key: Option<PublicKey>) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = LegIo::new(io, self.max_frame_size);
        let attach = Attach { key, ..attachment(expected, io, None, self.options) };
        self.controls.send(Control::Attach(attach)).map_err(|_| closed())
    }

    /// Adds a leg over which the universe was brought together.
    pub(super) fn attach_begun<IO>(
        &self,
        expected: Expected,
        key: Option<PublicKey>,
        io: LegIo<IO>,
        hello: LegHello,
    ) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let attach = Attach { key, ..attachment(expected, io, Some(hello), self.options) };
        self.controls.send(Control::Attach(attach)).map_err(|_| closed())
    }

    fn keep<C, F, IO>(
        &self,
        expected: Expected,
        backoff: Backoff,
        mut connect: C,
        key: impl Fn(&IO) -> Option<PublicKey> + Send + 'static,
    ) where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = std::io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (controls, from_legs) = (self.controls.downgrade(), self.from_legs.clone());
        let (max_frame_size, options) = (self.max_frame_size, self.options);
        let keep = async move {
            let mut attempts = 0_u32;
            loop {
                if let Ok(io) = connect().await {
                    let (sender, ended) = oneshot::channel();
                    let key = key(&io);
                    let io = LegIo::new(io, max_frame_size);
                    let attach = attachment(expected, io, None, options);
                    let attach = Attach { key, ended: Some(sender), ..attach };
                    let Some(controls) = controls.upgrade() else { return };
                    if controls.send(Control::Attach(attach)).is_err() {
                        return;
                    }
                    drop(controls);
                    let since = Instant::now();
                    match ended.await {
                        Ok(LegEnd::Goodbye | LegEnd::Left) | Err(_) => return,
                        Ok(_) if since.elapsed() > backoff.longest => attempts = 0,
                        Ok(_) => {}
                    }
                }
                tokio::time::sleep(backoff.pause(attempts)).await;
                attempts = attempts.saturating_add(1);
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = keep => {}
                () = from_legs.closed() => {}
            }
        });
    }

    /// Runs a call on the session, in its task.
    async fn run<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut DmlsSession, Time) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let (reply, result) = oneshot::channel();
        let call = move |session: &mut DmlsSession, now| {
            let _ = reply.send(call(session, now));
        };
        self.controls.send(Control::Run(Box::new(call))).map_err(|_| closed())?;
        result.await.map_err(|_| closed())
    }

    pub(super) fn queue(&self, data: Bytes, outcome: Outcome) -> Result<(), Error> {
        let cost = EVENT_COST + data.len();
        self.gauge.add(cost);
        self.sends.send(Sending::Message { data, outcome }).map_err(|_| {
            self.gauge.release(cost);
            closed()
        })
    }

    /// What became of messages that went into the sink.
    pub(super) fn check(&self) -> Result<(), Error> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }
}

pub(super) fn closed() -> Error {
    ApiMisuse::Closed.into()
}

fn attachment<IO>(
    expected: Expected,
    io: LegIo<IO>,
    hello: Option<LegHello>,
    options: MulticastOptions,
) -> Attach
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let hello_is_due = hello.is_none();
    let start = Box::new(move |task: super::task::LegTask, queue| {
        tokio::spawn(task.run(io, queue, hello_is_due, options.patience()));
    });
    Attach { expected, key: None, hello, start, ended: None }
}

impl Clone for MulticastSender {
    fn clone(&self) -> Self {
        Self {
            sends: self.sends.clone(),
            gauge: Arc::clone(&self.gauge),
            controls: self.controls.clone(),
            from_legs: self.from_legs.clone(),
            options: self.options,
            max_frame_size: self.max_frame_size,
            me: self.me,
            universe_id: self.universe_id.clone(),
            failure: Arc::default(),
            flush: None,
            left: None,
        }
    }
}

impl MulticastReceiver {
    /// The next message or event; `None` after the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Once, what the session has failed of.
    pub async fn next_event(&mut self) -> Option<Result<MulticastEvent, Error>> {
        let event = self.events.recv().await;
        self.taken(event.as_ref());
        event
    }

    pub(super) fn taken(&self, event: Option<&Result<MulticastEvent, Error>>) {
        if let Some(Ok(event)) = event {
            self.gauge.release(event.cost());
        }
    }
}

impl fmt::Debug for Multicast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multicast").field("me", &self.sender.me).finish_non_exhaustive()
    }
}

impl fmt::Debug for MulticastSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MulticastSender").field("me", &self.me).finish_non_exhaustive()
    }
}

impl fmt::Debug for MulticastReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MulticastReceiver").finish_non_exhaustive()
    }
}
