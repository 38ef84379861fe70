//! The task that owns the session. Handles and legs only queue.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::SystemTime,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    legs::{LegId, LegState},
    options::{LegEnd, LegPeer, MulticastEvent, MulticastOptions, SlowLeg},
    queue::{Gauge, QueueReader},
    sends::{Next, Sends},
    task::{Input, LegTask},
};
use crate::{
    dmls::{Destination, DmlsEvent, DmlsSession, place_of},
    error::{ApiMisuse, Error},
    identity::PublicKey,
    time::Time,
    wire::{LegFrame, LegHello, NO_MEMBER},
};

/// What an event costs besides its data, in bytes.
pub(crate) const EVENT_COST: usize = 128;

/// What the application sends, in order.
pub(crate) enum Send {
    Message {
        data: Bytes,
        outcome: Outcome,
    },
    /// Everything before it has been protected.
    Flush(oneshot::Sender<()>),
}

/// Who is told what became of a message.
pub(crate) enum Outcome {
    /// One who waits.
    Reply(oneshot::Sender<Result<(), Error>>),
    /// A sink, which hears of the first failure later.
    Sink(Arc<Mutex<Option<Error>>>),
}

/// What is done with the session.
pub(crate) type Call = Box<dyn FnOnce(&mut DmlsSession, Time) + std::marker::Send>;

/// What else the application wants.
pub(crate) enum Control {
    Run(Call),
    Attach(Attach),
    /// After what was sent before; until then at the latest.
    Leave(Instant, oneshot::Sender<()>),
}

/// A new leg.
pub(crate) struct Attach {
    pub(crate) expected: Expected,
    /// The peer's key, if the leg is a channel: then what comes is from that member.
    pub(crate) key: Option<PublicKey>,
    /// What is known of the other end already.
    pub(crate) hello: Option<LegHello>,
    /// Starts the leg's task.
    pub(crate) start: Box<dyn FnOnce(LegTask, QueueReader) + std::marker::Send>,
    pub(crate) ended: Option<oneshot::Sender<LegEnd>>,
}

/// Who may be at the other end of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    AnyMember,
    Member(u16),
    Relay,
}

/// What comes from the tasks of legs. Its room is given back when it has been processed.
pub(crate) enum FromLeg {
    Hello(LegId, LegHello, OwnedSemaphorePermit),
    Frame(LegId, LegFrame, OwnedSemaphorePermit),
    Ended(LegId, LegEnd),
}

pub(crate) struct Driver {
    pub(super) session: DmlsSession,
    pub(super) options: MulticastOptions,
    pub(super) legs: BTreeMap<LegId, LegState>,
    /// Counts legs and proofs of life, so that they have an order.
    pub(super) counter: u64,
    pub(super) from_legs: mpsc::UnboundedSender<FromLeg>,
    pub(super) input: Input,
    /// A leg has written all that it had.
    pub(super) drained: Arc<Notify>,
    inbound: mpsc::UnboundedReceiver<FromLeg>,
    sends: Sends,
    controls: mpsc::UnboundedReceiver<Control>,
    events: mpsc::UnboundedSender<Result<MulticastEvent, Error>>,
    event_gauge: Arc<Gauge>,
    leaving: Option<Leaving>,
}

/// The application has said that it leaves.
struct Leaving {
    deadline: Instant,
    /// Who waits for the end.
    waiting: Vec<oneshot::Sender<()>>,
}

/// The other ends of a driver's queues.
pub(crate) struct Ends {
    pub(crate) sends: mpsc::UnboundedSender<Send>,
    pub(crate) send_gauge: Arc<Gauge>,
    /// The driver ends when this and all its clones are gone.
    pub(crate) controls: mpsc::UnboundedSender<Control>,
    /// Closed when the driver has ended.
    pub(crate) from_legs: mpsc::UnboundedSender<FromLeg>,
    pub(crate) events: mpsc::UnboundedReceiver<Result<MulticastEvent, Error>>,
    pub(crate) event_gauge: Arc<Gauge>,
}

impl Driver {
    pub(crate) fn new(session: DmlsSession, options: MulticastOptions) -> (Self, Ends) {
        let (from_legs, inbound) = mpsc::unbounded_channel();
        let (send_sender, sends) = mpsc::unbounded_channel();
        let (control_sender, controls) = mpsc::unbounded_channel();
        let (events, event_receiver) = mpsc::unbounded_channel();
        let send_gauge = Gauge::new(options.send_queue);
        let event_gauge = Gauge::new(options.event_queue);
        let ends = Ends {
            sends: send_sender,
            send_gauge: Arc::clone(&send_gauge),
            controls: control_sender,
            from_legs: from_legs.clone(),
            events: event_receiver,
            event_gauge: Arc::clone(&event_gauge),
        };
        let sends = Sends::new(sends, send_gauge, session.max_content());
        let driver = Self {
            session,
            options,
            legs: BTreeMap::new(),
            counter: 0,
            from_legs,
            input: Input::new(options.leg_input),
            drained: Arc::default(),
            inbound,
            sends,
            controls,
            events,
            event_gauge,
            leaving: None,
        };
        (driver, ends)
    }

    /// Runs until the application has left or gone, or the session has failed.
    pub(crate) async fn run(mut self) {
        let mut sends_open = true;
        loop {
            if let Err(error) = self.pump() {
                let _ = self.events.send(Err(error));
                return;
            }
            if self.leaving.is_some() {
                self.say_goodbye();
                if self.legs.is_empty() {
                    break;
                }
            }
            let unread =
                self.leaving.is_none() && !self.events.is_closed() && self.event_gauge.is_full();
            let blocked = self.options.slow_leg == SlowLeg::Wait && self.has_slow_leg();
            let timeout = self.session.poll_timeout().map(Instant::from_std);
            let deadline = self.leaving.as_ref().map(|leaving| leaving.deadline);
            let due = [timeout, deadline].into_iter().flatten().min();
            let timer = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let legs = &self.legs;
            let room = poll_fn(|cx| {
                let has_room = |leg: &LegState| leg.queue.poll_room(cx).is_ready();
                let behind = legs.values().any(|leg| leg.cursor.is_some());
                let full = legs.values().filter(|leg| leg.is_up() && !has_room(leg)).count();
                if full == 0 && !behind { Poll::Ready(()) } else { Poll::Pending }
            });
            tokio::select! {
                control = self.controls.recv() => match control {
                    Some(control) => self.handle_control(control),
                    // Both halves have been dropped.
                    None => return,
                },
                next = self.sends.next(), if sends_open && !blocked => match next {
                    Some(next) => self.handle_send(next),
                    None => sends_open = false,
                },
                Some(from) = self.inbound.recv(), if !unread => self.handle_leg(from),
                () = self.event_gauge.room(), if unread => {}
                () = self.events.closed(), if unread => {}
                () = room, if blocked => {}
                () = self.drained.notified() => {}
                () = timer => {
                    let now = now();
                    if deadline.is_some_and(|at| at <= Instant::now()) {
                        break;
                    }
                    // What it says of the session, `pump` will find.
                    let _ = self.session.handle_timeout(now);
                }
            }
        }
        self.legs.clear();
        for left in self.leaving.into_iter().flat_map(|leaving| leaving.waiting) {
            let _ = left.send(());
        }
    }

    /// Hands on what the session has to say.
    fn pump(&mut self) -> Result<(), Error> {
        loop {
            let frame = self.session.poll_frame()?;
            let Some((destination, frame)) = frame else { break };
            self.route(destination, frame);
        }
        self.tell_events();
        let behind: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(_, leg)| leg.cursor.is_some() && !leg.queue.is_full())
            .map(|(id, _)| *id)
            .collect();
        for id in behind {
            self.catch_up(id);
        }
        Ok(())
    }

    /// Tells the application what has happened. Gives whether a frame has turned out to be forged.
    pub(super) fn tell_events(&mut self) -> bool {
        let mut forged = false;
        while let Some(event) = self.session.poll_event() {
            forged |= matches!(event, DmlsEvent::Discarded { .. });
            self.tell(match event {
                DmlsEvent::Message { from, data } => MulticastEvent::Message { from, data },
                event => MulticastEvent::Universe(event),
            });
        }
        forged
    }

    pub(super) fn tell(&self, event: MulticastEvent) {
        let cost = event.cost();
        self.event_gauge.add(cost);
        if self.events.send(Ok(event)).is_err() {
            self.event_gauge.release(cost);
        }
    }

    fn handle_send(&mut self, next: Next) {
        match next {
            Next::Messages(messages) => {
                let data: Vec<&[u8]> = messages.iter().map(|(data, _)| &data[..]).collect();
                let result = if self.leaving.is_some() {
                    Err(ApiMisuse::Closed.into())
                } else if self.options.slow_leg == SlowLeg::Error && self.has_slow_leg() {
                    Err(ApiMisuse::SlowLeg.into())
                } else {
                    self.session.protect_all(now(), &data)
                };
                for (data, outcome) in messages {
                    self.sends.release(&data);
                    outcome.tell(result.clone());
                }
            }
            Next::Flush(done) => {
                let _ = done.send(());
            }
        }
    }

    fn handle_control(&mut self, control: Control) {
        match control {
            Control::Run(call) => call(&mut self.session, now()),
            Control::Attach(attach) if self.leaving.is_none() => self.attach(attach),
            Control::Attach(Attach { ended, .. }) => {
                let _ = ended.map(|ended| ended.send(LegEnd::Left));
            }
            Control::Leave(deadline, left) => self.leave(deadline, left),
        }
    }

    fn leave(&mut self, deadline: Instant, left: oneshot::Sender<()>) {
        // What was sent goes before the goodbye, whichever legs are slow.
        while let Some(next) = self.sends.try_next() {
            self.handle_send(next);
        }
        let leaving = self.leaving.get_or_insert(Leaving { deadline, waiting: Vec::new() });
        leaving.deadline = leaving.deadline.min(deadline);
        leaving.waiting.push(left);
    }

    fn handle_leg(&mut self, from: FromLeg) {
        match from {
            FromLeg::Hello(id, hello, _room) => self.handle_hello(id, &hello),
            // Who leaves waits for goodbyes. What it does not take comes again if it comes back.
            FromLeg::Frame(..) if self.leaving.is_some() && self.event_gauge.is_full() => {}
            FromLeg::Frame(id, frame, _room) => self.handle_frame(id, frame),
            FromLeg::Ended(id, end) => self.detach(id, end),
        }
    }

    /// Puts a frame into the queues of those whom it concerns.
    fn route(&mut self, destination: Destination, frame: Bytes) {
        let me = self.session.me().0;
        let to = match destination {
            Destination::All => NO_MEMBER,
            Destination::One(member) => member.0,
        };
        // The policy of the session has seen to its length.
        let Ok(records) = super::leg::encode_frame(me, to, frame.clone()) else { return };
        match destination {
            Destination::All => self.route_to_all(place_of(&frame), &records),
            Destination::One(member) => self.route_to_one(member.0, &records),
        }
    }

    fn route_to_all(&mut self, place: Option<u64>, records: &Bytes) {
        let mut slow = Vec::new();
        for (id, leg) in self.legs.iter_mut().filter(|(_, leg)| leg.is_up()) {
            // Who is behind gets it when it has caught up.
            if leg.cursor.is_some() {
                continue;
            }
            if !leg.queue.is_full() {
                leg.queue.push(records.clone());
            } else if self.options.slow_leg == SlowLeg::Drop {
                slow.push(*id);
            } else {
                leg.cursor = place;
            }
        }
        for id in slow {
            self.detach(id, LegEnd::Slow);
        }
    }

    /// A frame to one member is sent again by the session if it does not arrive, or not needed.
    fn route_to_one(&self, member: u16, records: &Bytes) {
        let has_leg = |leg: &&LegState| leg.is_up() && !leg.queue.is_full();
        let of =
            |peer: LegPeer| self.legs.values().filter(has_leg).filter(move |leg| leg.peer == peer);
        let member = LegPeer::Member(crate::dmls::MemberIndex(member));
        let peer = if of(member).next().is_some() { member } else { LegPeer::Relay };
        for leg in of(peer) {
            leg.queue.push(records.clone());
        }
    }

    fn has_slow_leg(&self) -> bool {
        self.legs.values().any(|leg| leg.is_up() && (leg.cursor.is_some() || leg.queue.is_full()))
    }
}

impl Outcome {
    fn tell(self, result: Result<(), Error>) {
        match self {
            Self::Reply(reply) => {
                let _ = reply.send(result);
            }
            Self::Sink(first) => {
                if let Err(error) = result {
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        }
    }
}

impl MulticastEvent {
    /// What it takes of the queue of events.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Message { data, .. } => EVENT_COST + data.len(),
            _ => EVENT_COST,
        }
    }
}

/// The time of tokio, which tests can turn.
pub(crate) fn now() -> Time {
    Time::at(Instant::now().into_std(), SystemTime::now())
}
