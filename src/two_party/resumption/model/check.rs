//! The checker at work: what always holds, and what it finds when a rule is broken.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::*;

struct Sessions {
    rules: Rules,
    bounds: Bounds,
}

impl Model for Sessions {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // What is at fault is found already.
        if world.faults != Faults::default() {
            return;
        }
        let more_commits = world.commits < self.bounds.commits;
        for (connection, Connection { ends, queues, .. }) in (0..).zip(&world.connections) {
            for (end, (state, queue)) in (0..).zip(ends.iter().zip(queues)) {
                let party = world.connections[usize::from(connection)].party(usize::from(end));
                let stored = &world.parties[usize::from(party)];
                if *state == (End::Live { current: true })
                    && stored.outbox.is_none()
                    && more_commits
                {
                    actions.push(Action::Update { connection, end, rotates: false });
                    if world.rotations < self.bounds.rotations {
                        actions.push(Action::Update { connection, end, rotates: true });
                    }
                }
                if !queue.is_empty() {
                    // An answer may need a commit.
                    let answers = matches!(queue[0], Message::Request { .. });
                    if more_commits || !answers {
                        actions.push(Action::Deliver { connection, end, accepts: true });
                        if let Message::Update(commit)
                        | Message::Request { commit, .. }
                        | Message::Response { commit, .. } = queue[0]
                            && commit.rotates
                        {
                            actions.push(Action::Deliver { connection, end, accepts: false });
                        }
                    }
                }
                // Nothing has to be delivered or done, so every prefix of everything is explored
                // without cutting. Only whether a party waits may be looked at by a rule.
                if matches!(state, End::ExpectResponse { .. }) {
                    actions.push(Action::Cut { connection, end });
                }
            }
        }
        if world.crashes < self.bounds.crashes {
            actions.extend([Action::Crash { party: 0 }, Action::Crash { party: 1 }]);
        }
        if world.connections.len() >= self.bounds.connections {
            return;
        }
        for party in 0..2 {
            let has_commit = world.parties[usize::from(party)].outbox.is_some();
            if has_commit || more_commits {
                actions.push(Action::Start { party, early_data: false });
            }
            if !has_commit && more_commits && self.bounds.early_data {
                actions.push(Action::Start { party, early_data: true });
            }
        }
        if world.replays < self.bounds.replays {
            for to in 0..2 {
                for (request, _) in (0..).zip(&world.requests) {
                    actions.push(Action::Replay { request, to });
                }
                for (response, _) in (0..).zip(&world.responses) {
                    actions.push(Action::Convert { response, to });
                }
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Update { connection, end, rotates } => {
                let (connection, end) = (usize::from(connection), usize::from(end));
                let party = world.connections[connection].party(end);
                let mut commit = world.new_commit(party);
                commit.rotates = rotates;
                world.parties[usize::from(party)].outbox = Some(commit);
                world.rotations += u8::from(rotates);
                world.stored(party, Some((connection, end)));
                world.send(connection, end, Message::Update(commit));
            }
            Action::Deliver { connection, end, accepts } => {
                world.deliver(&self.rules, connection.into(), end.into(), accepts);
            }
            Action::Cut { connection, end } => world.kill(connection.into(), end.into()),
            Action::Crash { party } => {
                world.crashes += 1;
                for connection in 0..world.connections.len() {
                    for end in 0..2 {
                        if world.connections[connection].party(end) == party {
                            world.kill(connection, end);
                        }
                    }
                }
            }
            Action::Start { party, early_data } => world.start(party, early_data),
            Action::Replay { request, to } => {
                let request = world.requests[usize::from(request)];
                world.replay(request, to);
            }
            Action::Convert { response, to } => {
                let commit = world.responses[usize::from(response)];
                world.replay(Message::Request { commit, early_data: false, genuine: false }, to);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("histories do not fork", |_: &Self, world: &World| {
                !world.faults.forked
            }),
            Property::always("ends agree when quiet", |_: &Self, world: &World| {
                world.agrees_when_quiet()
            }),
            Property::always("resumption stays possible", |model: &Self, world: &World| {
                world.faults != Faults::default()
                    || (0..2).all(|party| world.can_resume(&model.rules, party))
            }),
            Property::always("no key is used twice", |_: &Self, world: &World| {
                !world.faults.key_reused
            }),
            Property::always("early data is delivered once", |_: &Self, world: &World| {
                !world.faults.delivered_twice
            }),
            Property::always("the report on early data is true", |_: &Self, world: &World| {
                !world.faults.untruthful
            }),
            Property::always("a replay does not hurt", |_: &Self, world: &World| {
                !world.faults.hurt_by_replay
            }),
            Property::sometimes("requests cross", |_: &Self, world: &World| world.seen.crossed),
            Property::sometimes("a request is answered by another", |_: &Self, world: &World| {
                world.seen.insisted
            }),
            Property::sometimes("a request is repeated", |_: &Self, world: &World| {
                world.seen.repeated
            }),
            Property::sometimes("the peer has applied ours", |_: &Self, world: &World| {
                world.seen.merged
            }),
            Property::sometimes("early data is delivered", |model: &Self, world: &World| {
                world.seen.delivered || !model.bounds.early_data
            }),
            Property::sometimes("a rekey follows a resumption", |_: &Self, world: &World| {
                world.seen.rekeyed_after
            }),
            Property::sometimes("an identity changes", |model: &Self, world: &World| {
                world.seen.rotated || model.bounds.rotations == 0
            }),
            Property::sometimes("a live change is refused", |model: &Self, world: &World| {
                world.seen.refused_live || model.bounds.rotations == 0
            }),
            Property::sometimes("a resumption is refused", |model: &Self, world: &World| {
                world.seen.refused_resumption || model.bounds.rotations == 0
            }),
            Property::sometimes("a replay meets a live session", |model: &Self, world: &World| {
                world.seen.replay_refused || model.bounds.replays == 0
            }),
        ]
    }
}

const CI: [Bounds; 4] = [
    Bounds { connections: 3, commits: 4, crashes: 1, replays: 0, rotations: 0, early_data: true },
    Bounds { connections: 4, commits: 4, crashes: 0, replays: 1, rotations: 0, early_data: false },
    Bounds { connections: 3, commits: 4, crashes: 1, replays: 0, rotations: 1, early_data: false },
    Bounds { connections: 4, commits: 3, crashes: 0, replays: 1, rotations: 1, early_data: false },
];

fn check(rules: Rules, bounds: Bounds) -> impl Checker<Sessions> {
    Sessions { rules, bounds }.checker().threads(2).spawn_bfs().join()
}

fn holds(bounds: Bounds) -> usize {
    let checker = check(Rules::real(), bounds);
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
    assert!(checker.is_done(), "the whole bounded space was explored");
    checker.unique_state_count()
}

/// With a rule broken, the checker finds a way in which the property does not hold.
fn finds(property: &'static str, rules: Rules) {
    let concerned =
        |bounds: &Bounds| bounds.rotations > 0 || !rules.drop_when_resumption_is_refused;
    let found = CI.into_iter().filter(concerned).any(|bounds| {
        let model = Sessions { rules: rules.clone(), bounds };
        let finish = HasDiscoveries::AnyOf([property].into());
        let checker = model.checker().threads(2).finish_when(finish).spawn_bfs().join();
        let path = checker.discovery(property);
        if let Some(path) = path {
            println!("{property}: {:?}", path.into_actions());
            return true;
        }
        false
    });
    assert!(found, "{property}: nothing was found");
}

// 2P-14, 2P-16, 2P-17, 2P-18, 2P-21, TL-08
#[test]
fn the_rules_hold_with_crashes_and_early_data() {
    assert!(holds(CI[0]) > 10_000);
}

// 2P-18, 2P-21
#[test]
fn the_rules_hold_against_replays() {
    assert!(holds(CI[1]) > 10_000);
}

// 2P-13, 2P-21
#[test]
fn the_rules_hold_when_identities_change() {
    assert!(holds(CI[2]) > 10_000);
    assert!(holds(CI[3]) > 1000);
}

// 2P-13, 2P-21: a request that was refused may come again, and be accepted then.
#[test]
fn dropping_what_was_refused_in_a_resumption_is_found_out() {
    let rules = Rules { drop_when_resumption_is_refused: true, ..Rules::real() };
    finds("resumption stays possible", rules);
}

// 2P-18: as the draft has it. A request whose sender gave up may still arrive.
#[test]
fn going_by_whether_one_waits_is_found_out() {
    finds(
        "histories do not fork",
        Rules {
            on_request: |own, commit, waiting| match on_request(own, commit) {
                OnRequest::KeepOwn if !waiting => OnRequest::DropOwnThenApply,
                row => row,
            },
            ..Rules::real()
        },
    );
}

// 2P-16, 2P-21
#[test]
fn a_fresh_answer_to_a_repeated_request_is_found_out() {
    finds("resumption stays possible", Rules { fresh_answer_to_repeated: true, ..Rules::real() });
}

// 2P-21
#[test]
fn a_table_without_its_row_for_the_next_epoch_is_found_out() {
    finds(
        "resumption stays possible",
        Rules {
            on_request: |own, commit, _| match on_request(own, commit) {
                OnRequest::MergeOwnThenApply => OnRequest::Refuse,
                row => row,
            },
            ..Rules::real()
        },
    );
}

// 2P-21
#[test]
fn sending_before_confirmation_is_found_out() {
    finds("no key is used twice", Rules { respond_before_confirmation: true, ..Rules::real() });
}

// 2P-21: a response, presented as a request.
#[test]
fn a_request_without_a_binder_is_found_out() {
    finds("a replay does not hurt", Rules { check_binder: false, ..Rules::real() });
}

// 2P-21: a request whose commit was confirmed as an answer elsewhere is replayed.
#[test]
fn a_request_that_becomes_an_answer_is_found_out() {
    finds(
        "a replay does not hurt",
        Rules {
            on_request: |own, commit, _| match on_request(own, commit) {
                OnRequest::KeepOwn if own.epoch != commit.epoch => OnRequest::Repeat,
                row => row,
            },
            ..Rules::real()
        },
    );
}

/// Larger bounds, for a quiet hour:
/// `cargo test --release --lib the_rules_hold_in_a_larger_space -- --ignored --nocapture`.
#[test]
#[ignore = "takes long"]
fn the_rules_hold_in_a_larger_space() {
    let bounds = Bounds {
        connections: 4,
        commits: 5,
        crashes: 1,
        replays: 1,
        rotations: 2,
        early_data: true,
    };
    holds(bounds);
}
