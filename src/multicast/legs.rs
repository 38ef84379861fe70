//! The legs of a multicast, as the task that owns the session sees them.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    driver::{Attach, Driver, Expected, now},
    leg::encode_frame,
    options::{LegEnd, LegPeer, MulticastEvent},
    queue::{QueueWriter, queue},
    task::LegTask,
};
use crate::{
    dmls::MemberIndex,
    error::{Error, PeerMisbehaved},
    identity::PublicKey,
    wire::{LEG_VERSION, LegFrame, LegHello, LegMessage, NO_MEMBER, WantedPlace},
};

/// Legs with one member at once. More than one are good while a broken one is not known to be
/// broken; and who claims to be a member without being it does not push that one out.
const LEGS_PER_MEMBER: usize = 4;

/// Accepted legs whose other end has not said who it is.
const MAX_UNKNOWN: usize = 64;

/// Frames in a row that the session refuses from one leg with a member.
const MAX_REFUSED: u32 = 256;

/// Numbers legs in the order in which they came.
pub(crate) type LegId = u64;

pub(crate) struct LegState {
    expected: Expected,
    /// What comes over it is from the peer.
    is_channel: bool,
    pub(super) peer: LegPeer,
    pub(super) queue: QueueWriter,
    /// The place of the own frame that is to be sent next, if the leg is behind.
    pub(super) cursor: Option<u64>,
    /// When a frame came over it that was new and good; 0: never.
    proven: u64,
    refused: u32,
    /// The goodbye is in its queue.
    leaving: bool,
    ended: Option<oneshot::Sender<LegEnd>>,
}

impl LegState {
    /// Both ends know each other.
    pub(super) fn is_up(&self) -> bool {
        self.peer != LegPeer::Unknown && !self.leaving
    }

    /// Whoever can connect may be at its other end. Legs that the application has opened, it bounds itself.
    fn is_stranger(&self) -> bool {
        self.peer == LegPeer::Unknown && self.expected == Expected::AnyMember
    }
}

impl Driver {
    pub(super) fn attach(&mut self, attach: Attach) {
        let Attach { expected, key, hello, start, ended } = attach;
        let known = |key: &PublicKey| self.session.member_with(key).map(|m| Expected::Member(m.0));
        if key.as_ref().is_some_and(|key| known(key) != Some(expected)) {
            let error = PeerMisbehaved::UnexpectedUniverse("a leg of another member").into();
            let end = LegEnd::Refused(error);
            self.tell(MulticastEvent::LegDown { peer: LegPeer::Unknown, end: end.clone() });
            let _ = ended.map(|ended| ended.send(end));
            return;
        }
        self.counter += 1;
        let id = self.counter;
        let (queue, reader) = queue(self.options.leg_queue);
        // It has no more members than fit.
        if let Ok(records) = LegMessage::Hello(self.hello()).encode() {
            queue.push(records);
        }
        let leg = LegState {
            expected,
            is_channel: key.is_some(),
            peer: LegPeer::Unknown,
            queue,
            cursor: None,
            proven: 0,
            refused: 0,
            leaving: false,
            ended,
        };
        self.legs.insert(id, leg);
        if expected == Expected::AnyMember {
            self.make_room(id, |leg| leg.is_stranger(), MAX_UNKNOWN);
        }
        let (driver, drained) = (self.from_legs.clone(), Arc::clone(&self.drained));
        start(LegTask::new(id, driver, drained, self.input.clone()), reader);
        if let Some(hello) = hello {
            self.handle_hello(id, &hello);
        }
    }

    /// What this party says first: who it is, and what it has of whom.
    fn hello(&self) -> LegHello {
        let me = self.session.me().0;
        let next = |member| self.session.next_of(MemberIndex(member));
        LegHello {
            version: LEG_VERSION,
            universe_id: self.session.universe_id().to_vec(),
            member: me,
            wanted: (0..self.session.size())
                .filter(|member| *member != me)
                .map(|member| WantedPlace { member, next: next(member) })
                .collect(),
        }
    }

    pub(super) fn handle_hello(&mut self, id: LegId, hello: &LegHello) {
        let Some(leg) = self.legs.get(&id) else { return };
        let peer = match self.check_hello(leg.expected, hello) {
            Ok(peer) => peer,
            Err(error) => return self.detach(id, LegEnd::Refused(error)),
        };
        let me = self.session.me().0;
        let wanted = hello.next_of(me);
        let leaf_update = match peer {
            LegPeer::Member(member) => self.session.leaf_update_for(member),
            _ => None,
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_new = leg.peer == LegPeer::Unknown;
        leg.peer = peer;
        leg.cursor = Some(wanted);
        if let (LegPeer::Member(member), Some(frame)) = (peer, leaf_update)
            && let Ok(records) = encode_frame(me, member.0, frame)
        {
            leg.queue.push(records);
        }
        if is_new {
            self.tell(MulticastEvent::LegUp { peer });
            self.make_room(id, |leg| leg.peer == peer, LEGS_PER_MEMBER);
        }
    }

    fn check_hello(&self, expected: Expected, hello: &LegHello) -> Result<LegPeer, Error> {
        let unexpected = |what| Err(PeerMisbehaved::UnexpectedUniverse(what).into());
        if expected == Expected::Relay {
            return match hello.member {
                NO_MEMBER => Ok(LegPeer::Relay),
                _ => unexpected("a member instead of a relay"),
            };
        }
        if hello.universe_id != self.session.universe_id() {
            return unexpected("a leg of another one");
        }
        let is_other = hello.member < self.session.size() && hello.member != self.session.me().0;
        let is_expected =
            expected == Expected::AnyMember || expected == Expected::Member(hello.member);
        if !is_other || !is_expected {
            return unexpected("a leg of another member");
        }
        Ok(LegPeer::Member(MemberIndex(hello.member)))
    }

    /// Gives up one of the legs that are the `same`, but not the `newest`, if there are more than `limit`:
    /// a raw one rather than a channel, and then one over which nothing good has come, or has not for the
    /// longest time.
    fn make_room(&mut self, newest: LegId, same: impl Fn(&LegState) -> bool, limit: usize) {
        let same = || self.legs.iter().filter(|(_, leg)| same(leg));
        if same().count() <= limit {
            return;
        }
        let others = same().filter(|(id, _)| **id != newest);
        let worth = |leg: &LegState| (leg.is_channel, leg.proven);
        if let Some((id, _)) = others.min_by_key(|(id, leg)| (worth(leg), **id)) {
            self.detach(*id, LegEnd::Replaced);
        }
    }

    pub(super) fn handle_frame(&mut self, id: LegId, frame: LegFrame) {
        let me = self.session.me().0;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (LegFrame { origin, destination, frame }, from) = (frame, leg.peer);
        let is_in_place = match from {
            LegPeer::Unknown => false,
            LegPeer::Member(member) => {
                member.0 == origin && (destination == NO_MEMBER || destination == me)
            }
            LegPeer::Relay => true,
        };
        if !is_in_place {
            let error = PeerMisbehaved::UnexpectedMessage("frame of another member").into();
            return self.detach(id, LegEnd::Refused(error));
        }
        if origin == me || (destination != NO_MEMBER && destination != me) {
            return;
        }
        let is_proven = leg.is_channel && from != LegPeer::Relay;
        let origin = MemberIndex(origin);
        let before = self.session.next_of(origin);
        let result = if is_proven {
            self.session.handle_frame(now(), origin, frame)
        } else {
            self.session.handle_unproven(now(), origin, frame)
        };
        let is_new = self.session.next_of(origin) > before;
        let is_forged = self.tell_events();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if is_new {
            self.counter += 1;
            leg.proven = self.counter;
        }
        let error = match result {
            Ok(()) if !is_forged => {
                leg.refused = 0;
                return;
            }
            Ok(()) => PeerMisbehaved::UnexpectedMessage("forged frame").into(),
            Err(error) => error,
        };
        // A relay is not to blame for what it copies, and has the frames of all.
        if from == LegPeer::Relay {
            return;
        }
        leg.refused += 1;
        if leg.refused >= MAX_REFUSED && self.session.failure().is_none() {
            self.detach(id, LegEnd::Refused(error));
        }
    }

    /// Puts own frames into the queue of a leg that is behind, as many as there is room for.
    pub(super) fn catch_up(&mut self, id: LegId) {
        let me = self.session.me().0;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(cursor) = leg.cursor else { return };
        let mut reached = None;
        for (place, frame) in self.session.frames_from(cursor) {
            if leg.queue.is_full() {
                reached = Some(place);
                break;
            }
            if let Ok(records) = encode_frame(me, NO_MEMBER, frame) {
                leg.queue.push(records);
            }
        }
        leg.cursor = reached;
    }

    pub(super) fn detach(&mut self, id: LegId, end: LegEnd) {
        let Some(leg) = self.legs.remove(&id) else { return };
        self.tell(MulticastEvent::LegDown { peer: leg.peer, end: end.clone() });
        let _ = leg.ended.map(|ended| ended.send(end));
    }

    /// Says goodbye on legs that have been sent everything, and gives up those that are not up.
    pub(super) fn say_goodbye(&mut self) {
        self.legs.retain(|_, leg| leg.peer != LegPeer::Unknown);
        for leg in self.legs.values_mut() {
            if leg.cursor.is_none() && !leg.leaving {
                leg.leaving = true;
                leg.queue.say_goodbye();
            }
        }
    }
}
