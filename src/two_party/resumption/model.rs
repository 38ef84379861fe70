//! An explicit-state model of sessions: two parties that update, lose connections at any point, crash
//! back to what they have stored, and resume, both at once if they like, and an attacker who replays
//! what was sent in the clear. It calls the very tables that the code calls (2P-18, 2P-21, TL-08).
//!
//! A commit is a number that is given out once; the history of a group is named by the last commit
//! in it. A revision of a stored session is the question whether a connection has seen the newest one.
//! MLS messages that would not decrypt are refused. The answer to an EpochKeyUpdate, which concerns
//! one connection only and no group, is left out. A commit that changes its maker's identity (2P-13) may
//! be refused, or not, each time that it arrives.

mod check;

use super::{
    super::rekey::{OnUpdate, on_update},
    table::{Incoming, OnRequest, View, answers, on_request},
};
use crate::auth::Role;

/// The rules of the protocol, to be broken on purpose.
#[derive(Clone)]
pub(super) struct Rules {
    /// The third argument: this party waits for a response on some connection.
    on_request: fn(View, Incoming, bool) -> OnRequest,
    /// A repeated request gets a new answer although the old one is not confirmed.
    fresh_answer_to_repeated: bool,
    /// The responder uses the keys of its answer before they are confirmed.
    respond_before_confirmation: bool,
    /// A request needs a binder that only the one who sends it as a request can make.
    check_binder: bool,
    /// Who is refused to be resumed with a new identity makes another commit.
    drop_when_resumption_is_refused: bool,
}

/// How much may happen.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    connections: usize,
    commits: u8,
    crashes: u8,
    replays: u8,
    rotations: u8,
    early_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Commit {
    id: u8,
    maker: u8,
    epoch: u8,
    parent: u8,
    /// It has a new identity.
    rotates: bool,
}

/// What a party has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    epoch: u8,
    /// The last commit in the group's history.
    head: u8,
    outbox: Option<Commit>,
    requested: bool,
    /// The last commit was the peer's.
    by_peer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    Update(Commit),
    EpochKeyUpdate(u8),
    UpdateRefused(u8),
    Request { commit: Commit, early_data: bool, genuine: bool },
    Response { commit: Commit, taken: bool },
    Confirmation(u8),
    Refusal,
}

/// One end of a connection. `current`: nobody else has stored the session since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Dead,
    ExpectRequest,
    ExpectResponse { commit: u8, early_data: bool },
    ExpectConfirmation { current: bool },
    Live { current: bool },
}

/// The opener's end is the first one, whoever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Connection {
    opener: u8,
    ends: [End; 2],
    /// To the opener, to the other one.
    queues: [Vec<Message>; 2],
    /// The other end is the attacker's.
    replay: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Label {
    Client,
    Server,
    Early,
}

/// What must never happen, noticed when it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Faults {
    forked: bool,
    key_reused: bool,
    delivered_twice: bool,
    /// The response says that early data was taken which was not, or the other way round.
    untruthful: bool,
    hurt_by_replay: bool,
}

/// What should happen somewhere, or the model shows nothing. No part of the state.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    crossed: bool,
    insisted: bool,
    repeated: bool,
    merged: bool,
    delivered: bool,
    rekeyed_after: bool,
    replay_refused: bool,
    rotated: bool,
    refused_live: bool,
    refused_resumption: bool,
}

impl PartialEq for Seen {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Seen {}

impl std::hash::Hash for Seen {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    parties: [Stored; 2],
    connections: Vec<Connection>,
    commits: u8,
    crashes: u8,
    replays: u8,
    rotations: u8,
    /// For each epoch, the commit that led out of it.
    chosen: Vec<u8>,
    /// Which key was used where: history, label, connection, party.
    keys: Vec<(u8, Label, u8, u8)>,
    delivered: Vec<u8>,
    /// What the attacker has seen in the clear.
    requests: Vec<Message>,
    responses: Vec<Commit>,
    faults: Faults,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Update { connection: u8, end: u8, rotates: bool },
    Deliver { connection: u8, end: u8, accepts: bool },
    Cut { connection: u8, end: u8 },
    Crash { party: u8 },
    Start { party: u8, early_data: bool },
    Replay { request: u8, to: u8 },
    Convert { response: u8, to: u8 },
}

enum Reply {
    Response(Commit, bool),
    OwnRequest(Commit),
    Refuse,
}

const NOTHING: u8 = u8::MAX;

fn initial_role(party: u8) -> Role {
    if party == 0 { Role::Initiator } else { Role::Responder }
}

impl Rules {
    pub(super) fn real() -> Self {
        Self {
            on_request: |own, commit, _| on_request(own, commit),
            fresh_answer_to_repeated: false,
            respond_before_confirmation: false,
            check_binder: true,
            drop_when_resumption_is_refused: false,
        }
    }
}

impl Stored {
    fn view(&self, party: u8) -> View {
        View {
            initial_role: initial_role(party),
            epoch: self.epoch.into(),
            outbox: self.outbox.is_some(),
            requested: self.requested,
        }
    }

    fn incoming(&self, commit: Commit) -> Incoming {
        Incoming {
            epoch: commit.epoch.into(),
            is_last_applied: self.by_peer && self.head == commit.id,
        }
    }
}

impl Connection {
    fn party(&self, end: usize) -> u8 {
        if end == 0 { self.opener } else { 1 - self.opener }
    }

    fn label(end: usize) -> Label {
        if end == 0 { Label::Client } else { Label::Server }
    }
}

impl World {
    /// After the handshake: party 0 has opened connection 0, and both are live.
    fn new() -> Self {
        let stored = Stored { epoch: 1, head: 0, outbox: None, requested: false, by_peer: false };
        let mut world = Self {
            parties: [stored; 2],
            connections: vec![Connection {
                opener: 0,
                ends: [End::Live { current: true }; 2],
                queues: [vec![], vec![]],
                replay: false,
            }],
            commits: 0,
            crashes: 0,
            replays: 0,
            rotations: 0,
            chosen: vec![NOTHING; 2],
            keys: vec![],
            delivered: vec![],
            requests: vec![],
            responses: vec![],
            faults: Faults::default(),
            seen: Seen::default(),
        };
        world.use_key(0, Label::Client, 0, 0);
        world.use_key(0, Label::Server, 0, 1);
        world
    }

    fn use_key(&mut self, head: u8, label: Label, connection: usize, party: u8) {
        let connection = u8::try_from(connection).unwrap();
        let usage = (head, label, connection, party);
        if self.keys.contains(&usage) {
            return;
        }
        self.faults.key_reused |=
            self.keys.iter().any(|&(other, other_label, ..)| (other, other_label) == (head, label));
        self.keys.push(usage);
        self.keys.sort_unstable_by_key(|&(head, label, ..)| (head, label as u8));
    }

    fn new_commit(&mut self, party: u8) -> Commit {
        self.commits += 1;
        let stored = &mut self.parties[usize::from(party)];
        let (epoch, parent) = (stored.epoch, stored.head);
        let commit = Commit { id: self.commits, maker: party, epoch, parent, rotates: false };
        stored.outbox = Some(commit);
        stored.requested = false;
        commit
    }

    /// A party goes one epoch further. False: the commit does not fit its group.
    fn advance(&mut self, party: u8, commit: Commit) -> bool {
        let stored = &mut self.parties[usize::from(party)];
        if (stored.epoch, stored.head) != (commit.epoch, commit.parent) {
            return false;
        }
        stored.outbox = None;
        stored.requested = false;
        stored.epoch += 1;
        stored.head = commit.id;
        stored.by_peer = commit.maker != party;
        let epoch = usize::from(commit.epoch);
        if self.chosen.len() <= epoch {
            self.chosen.resize(epoch + 1, NOTHING);
        }
        match self.chosen[epoch] {
            NOTHING => self.chosen[epoch] = commit.id,
            chosen => self.faults.forked |= chosen != commit.id,
        }
        true
    }

    /// A party has stored its session: what its other connections have seen is old.
    fn stored(&mut self, party: u8, by: Option<(usize, usize)>) {
        for (index, connection) in self.connections.iter_mut().enumerate() {
            for end in 0..2 {
                if connection.party(end) == party
                    && by != Some((index, end))
                    && let End::Live { current } | End::ExpectConfirmation { current } =
                        &mut connection.ends[end]
                {
                    *current = false;
                }
            }
        }
    }

    fn send(&mut self, connection: usize, end: usize, message: Message) {
        match message {
            Message::Request { .. } if !self.requests.contains(&message) => {
                self.requests.push(message);
            }
            Message::Response { commit, .. } if !self.responses.contains(&commit) => {
                self.responses.push(commit);
            }
            _ => {}
        }
        let connection = &mut self.connections[connection];
        if connection.ends[1 - end] != End::Dead {
            connection.queues[1 - end].push(message);
        }
    }

    fn kill(&mut self, connection: usize, end: usize) {
        let connection = &mut self.connections[connection];
        connection.ends[end] = End::Dead;
        connection.queues[end].clear();
        if connection.ends == [End::Dead; 2] {
            // One dead connection is like another.
            (connection.opener, connection.replay) = (0, false);
        }
    }

    fn waits_for_response(&self, party: u8) -> bool {
        self.connections.iter().any(|connection| {
            (0..2).any(|end| {
                connection.party(end) == party
                    && matches!(connection.ends[end], End::ExpectResponse { .. })
            })
        })
    }

    /// A party opens a connection with a request.
    fn start(&mut self, party: u8, early_data: bool) {
        let (commit, fresh) = match self.parties[usize::from(party)].outbox {
            Some(commit) => (commit, false),
            None => (self.new_commit(party), true),
        };
        self.parties[usize::from(party)].requested = true;
        self.stored(party, None);
        let early_data = early_data && fresh;
        let index = self.connections.len();
        self.connections.push(Connection {
            opener: party,
            ends: [End::ExpectResponse { commit: commit.id, early_data }, End::ExpectRequest],
            queues: [vec![], vec![]],
            replay: false,
        });
        if early_data {
            self.use_key(commit.id, Label::Early, index, party);
        }
        self.send(index, 0, Message::Request { commit, early_data, genuine: true });
    }

    fn replay(&mut self, request: Message, to: u8) {
        self.replays += 1;
        self.connections.push(Connection {
            opener: 1 - to,
            ends: [End::Dead, End::ExpectRequest],
            queues: [vec![], vec![request]],
            replay: true,
        });
    }

    /// `accepts`: the party's authentication service believes in a new identity.
    fn deliver(&mut self, rules: &Rules, connection: usize, end: usize, accepts: bool) {
        let message = self.connections[connection].queues[end].remove(0);
        let party = self.connections[connection].party(end);
        let state = self.connections[connection].ends[end];
        let live = self.truly_live();
        let replay = self.connections[connection].replay;
        let before = self.parties;
        let alive = match (state, message) {
            (End::Live { current }, Message::Update(commit)) => {
                self.handle_update(connection, end, party, current, accepts, commit)
            }
            (End::Live { current }, Message::UpdateRefused(id)) => {
                let stored = &mut self.parties[usize::from(party)];
                match stored.outbox {
                    Some(own) if own.id == id && own.rotates && current => {
                        (stored.outbox, stored.requested) = (None, false);
                        self.stored(party, Some((connection, end)));
                        self.seen.refused_live = true;
                        true
                    }
                    _ => false,
                }
            }
            (End::Live { current }, Message::EpochKeyUpdate(id)) => {
                let stored = self.parties[usize::from(party)];
                match stored.outbox {
                    Some(own) if own.id == id && current => {
                        self.advance(party, own);
                        self.stored(party, Some((connection, end)));
                        self.use_key(own.id, Connection::label(end), connection, party);
                        self.seen.rekeyed_after |= connection > 0;
                        self.seen.rotated |= own.rotates;
                        true
                    }
                    _ => false,
                }
            }
            (End::ExpectRequest, Message::Request { .. }) => {
                self.handle_request(rules, connection, end, party, accepts, message)
            }
            (
                End::ExpectResponse { commit, early_data },
                Message::Request { commit: other, .. },
            ) => {
                // Early data is reported as rejected if the own commit is dropped for the peer's.
                let dropped = self.parties[usize::from(party)].epoch == other.epoch;
                let answered = end == 0
                    && self.handle_request(rules, connection, end, party, accepts, message);
                self.faults.untruthful |=
                    answered && early_data && dropped && self.delivered.contains(&commit);
                answered
            }
            (
                End::ExpectResponse { commit, early_data },
                Message::Response { commit: answer, taken },
            ) if accepts || !answer.rotates => {
                self.handle_response(connection, end, party, commit, early_data, answer, taken)
            }
            (End::ExpectResponse { commit, .. }, Message::Refusal)
                if rules.drop_when_resumption_is_refused =>
            {
                let stored = &mut self.parties[usize::from(party)];
                if stored.outbox.is_some_and(|own| own.id == commit && own.rotates) {
                    (stored.outbox, stored.requested) = (None, false);
                    self.stored(party, None);
                }
                false
            }
            (End::ExpectConfirmation { current }, Message::Confirmation(id)) => {
                match self.parties[usize::from(party)].outbox {
                    Some(own) if own.id == id && current => {
                        self.advance(party, own);
                        self.stored(party, Some((connection, end)));
                        self.connections[connection].ends[end] = End::Live { current: true };
                        self.use_key(id, Connection::label(end), connection, party);
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        if !alive {
            self.kill(connection, end);
        }
        if replay && live.is_some() {
            self.faults.hurt_by_replay |= before != self.parties || self.truly_live() != live;
            self.seen.replay_refused |= !alive;
        }
    }

    /// The connection on which both ends are live, and on the newest state.
    fn truly_live(&self) -> Option<usize> {
        self.connections
            .iter()
            .position(|connection| connection.ends == [End::Live { current: true }; 2])
    }

    fn handle_update(
        &mut self,
        connection: usize,
        end: usize,
        party: u8,
        current: bool,
        accepts: bool,
        commit: Commit,
    ) -> bool {
        let stored = self.parties[usize::from(party)];
        match on_update(initial_role(party), stored.outbox.is_some()) {
            OnUpdate::Ignore => return true,
            OnUpdate::Apply | OnUpdate::DropOwnThenApply => {}
        }
        // The store has a newer revision, or the commit does not decrypt.
        let fits = (stored.epoch, stored.head) == (commit.epoch, commit.parent);
        if !current || commit.maker == party || !fits {
            return false;
        }
        if commit.rotates && !accepts {
            let stored = &mut self.parties[usize::from(party)];
            (stored.outbox, stored.requested) = (None, false);
            self.stored(party, Some((connection, end)));
            self.send(connection, end, Message::UpdateRefused(commit.id));
            return true;
        }
        self.advance(party, commit);
        self.stored(party, Some((connection, end)));
        self.send(connection, end, Message::EpochKeyUpdate(commit.id));
        self.use_key(commit.id, Connection::label(end), connection, party);
        true
    }

    fn handle_request(
        &mut self,
        rules: &Rules,
        connection: usize,
        end: usize,
        party: u8,
        accepts: bool,
        request: Message,
    ) -> bool {
        let before = self.clone();
        let reply = self.answer(rules, connection, end, party, accepts, request);
        match reply {
            Reply::Response(commit, taken) => {
                self.connections[connection].ends[end] = End::ExpectConfirmation { current: true };
                self.send(connection, end, Message::Response { commit, taken });
                if rules.respond_before_confirmation {
                    self.use_key(commit.id, Connection::label(end), connection, party);
                }
                true
            }
            // Who was answered with a request does not insist in turn.
            Reply::OwnRequest(commit) if end == 1 => {
                self.connections[connection].ends[end] =
                    End::ExpectResponse { commit: commit.id, early_data: false };
                let request = Message::Request { commit, early_data: false, genuine: true };
                self.send(connection, end, request);
                true
            }
            _ => {
                *self = before;
                self.seen.refused_resumption |= matches!(request, Message::Request { commit, .. } if commit.rotates && !accepts);
                self.connections[connection].queues[end].clear();
                self.send(connection, end, Message::Refusal);
                false
            }
        }
    }

    /// On a refusal the caller undoes what this did.
    fn answer(
        &mut self,
        rules: &Rules,
        connection: usize,
        end: usize,
        party: u8,
        accepts: bool,
        request: Message,
    ) -> Reply {
        let Message::Request { commit, early_data, genuine } = request else {
            return Reply::Refuse;
        };
        let index = usize::from(party);
        let stored = self.parties[index];
        if rules.check_binder && !genuine || commit.maker == party {
            return Reply::Refuse;
        }
        let waiting = self.waits_for_response(party);
        let row = (rules.on_request)(stored.view(party), stored.incoming(commit), waiting);
        // The service is asked whenever the commit is applied, if only to a copy.
        let asked = match row {
            OnRequest::KeepOwn => commit.epoch == stored.epoch,
            OnRequest::Repeat | OnRequest::Refuse => false,
            OnRequest::Apply | OnRequest::DropOwnThenApply | OnRequest::MergeOwnThenApply => true,
        };
        if asked && commit.rotates && !accepts {
            return Reply::Refuse;
        }
        let applied = match row {
            OnRequest::Refuse => return Reply::Refuse,
            OnRequest::KeepOwn => {
                self.seen.insisted = true;
                // The binder is checked on a copy, so the commit has to fit.
                let fits = (stored.epoch, stored.head) == (commit.epoch, commit.parent)
                    || stored.by_peer && stored.head == commit.id;
                if !fits {
                    return Reply::Refuse;
                }
                if !stored.requested {
                    self.parties[index].requested = true;
                    self.stored(party, None);
                }
                return stored.outbox.map_or(Reply::Refuse, Reply::OwnRequest);
            }
            OnRequest::Repeat => {
                self.seen.repeated = true;
                false
            }
            OnRequest::DropOwnThenApply => {
                self.seen.crossed = true;
                self.parties[index].outbox = None;
                self.advance(party, commit)
            }
            OnRequest::Apply => self.advance(party, commit),
            OnRequest::MergeOwnThenApply => {
                self.seen.merged = true;
                stored.outbox.is_some_and(|own| self.advance(party, own))
                    && self.advance(party, commit)
            }
        };
        if !applied && row != OnRequest::Repeat {
            return Reply::Refuse;
        }
        let taken = applied && early_data;
        if taken {
            self.faults.delivered_twice |= self.delivered.contains(&commit.id);
            self.delivered.push(commit.id);
            self.seen.delivered = true;
        }
        match self.parties[index].outbox {
            Some(own) if !rules.fresh_answer_to_repeated => {
                // What was said when the commit was applied.
                Reply::Response(own, self.delivered.contains(&commit.id))
            }
            _ => {
                let own = self.new_commit(party);
                self.stored(party, Some((connection, end)));
                Reply::Response(own, taken)
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn handle_response(
        &mut self,
        connection: usize,
        end: usize,
        party: u8,
        sent: u8,
        early_data: bool,
        answer: Commit,
        taken: bool,
    ) -> bool {
        let stored = self.parties[usize::from(party)];
        let Some(own) = stored.outbox.filter(|own| own.id == sent) else {
            return false;
        };
        if answer.maker == party
            || answer.parent != own.id
            || !answers(stored.view(party), stored.incoming(answer))
        {
            return false;
        }
        if early_data {
            self.faults.untruthful |= taken != self.delivered.contains(&own.id);
        }
        self.advance(party, own);
        self.advance(party, answer);
        self.stored(party, Some((connection, end)));
        self.connections[connection].ends[end] = End::Live { current: true };
        self.send(connection, end, Message::Confirmation(answer.id));
        self.use_key(answer.id, Connection::label(end), connection, party);
        true
    }

    /// Both are live on one connection with nothing on the way, and have the same keys.
    fn agrees_when_quiet(&self) -> bool {
        self.connections.iter().all(|connection| {
            connection.ends != [End::Live { current: true }; 2]
                || !connection.queues.iter().all(Vec::is_empty)
                || self.parties[0].head == self.parties[1].head
        })
    }

    /// A new connection, opened by `party` with nobody interfering, resumes the session.
    fn can_resume(&self, rules: &Rules, party: u8) -> bool {
        let mut world = self.clone();
        for connection in 0..world.connections.len() {
            for end in 0..2 {
                world.kill(connection, end);
            }
        }
        world.start(party, false);
        let connection = world.connections.len() - 1;
        for _ in 0..8 {
            for end in 0..2 {
                if !world.connections[connection].queues[end].is_empty() {
                    world.deliver(rules, connection, end, true);
                }
            }
        }
        world.connections[connection].ends == [End::Live { current: true }; 2]
            && world.parties[0].head == world.parties[1].head
            && !world.faults.forked
            && !world.faults.key_reused
    }
}
