//! The table of resumption: what an incoming commit of the peer means, from what is stored alone.
//!
//! It is one total function, checked as it stands by a model checker (see `model.rs`). Its rows go by
//! the *initial* role, the one of the handshake that made the session, never by the role on the
//! present connection and never by whether this party still waits for something: a request whose
//! sender gave up may still arrive.

use crate::auth::Role;

/// What a stored session looks like to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// This party's role when the session was made.
    pub(crate) initial_role: Role,
    /// The epoch of the group.
    pub(crate) epoch: u64,
    /// There is an own commit on this epoch that the peer is not known to have applied.
    pub(crate) outbox: bool,
    /// It was sent as a request.
    pub(crate) requested: bool,
}

/// An incoming commit, as far as the table looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Incoming {
    /// The epoch on which it builds.
    pub(crate) epoch: u64,
    /// It is the very commit of the peer that led to the current epoch.
    pub(crate) is_last_applied: bool,
}

/// What to do with a ResumptionRequest (2P-16, 2P-17, 2P-18, 2P-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OnRequest {
    /// A new commit: apply it, answer with a commit of our own.
    Apply,
    /// The requests crossed, and ours yields: drop it, then as [`OnRequest::Apply`].
    DropOwnThenApply,
    /// Ours stands: answer with our own ResumptionRequest. Either the requests crossed, and ours wins;
    /// or we have applied the peer's before, and what would answer it was sent as a request. What was
    /// sent as a request is only ever sent as one: otherwise it could be confirmed as an answer, and
    /// the request be replayed to disturb the connection on which that happened.
    KeepOwn,
    /// The peer has applied ours: merge it, then as [`OnRequest::Apply`].
    MergeOwnThenApply,
    /// We have applied it before: answer with the commit in the outbox; if there is none, with a new
    /// one.
    Repeat,
    /// The two ends are out of step, or it is no request of this session's present: a full handshake
    /// is needed.
    Refuse,
}

/// The table for a ResumptionRequest.
pub(crate) fn on_request(own: View, commit: Incoming) -> OnRequest {
    let View { initial_role, epoch, outbox, requested } = own;
    if commit.epoch == epoch {
        return match (outbox, initial_role) {
            (false, _) => OnRequest::Apply,
            (true, Role::Responder) => OnRequest::DropOwnThenApply,
            (true, Role::Initiator) => OnRequest::KeepOwn,
        };
    }
    if outbox && Some(commit.epoch) == epoch.checked_add(1) {
        return OnRequest::MergeOwnThenApply;
    }
    if commit.is_last_applied && commit.epoch.checked_add(1) == Some(epoch) {
        return if outbox && requested { OnRequest::KeepOwn } else { OnRequest::Repeat };
    }
    OnRequest::Refuse
}

/// Whether a ResumptionResponse answers the request in the outbox: it builds on it. Then ours is
/// merged and the answer applied. Any other answer is refused.
pub(crate) fn answers(own: View, commit: Incoming) -> bool {
    own.outbox && Some(commit.epoch) == own.epoch.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 7;

    fn view(initial_role: Role, outbox: bool) -> View {
        View { initial_role, epoch: EPOCH, outbox, requested: false }
    }

    fn incoming(epoch: u64) -> Incoming {
        Incoming { epoch, is_last_applied: false }
    }

    fn repeated(epoch: u64) -> Incoming {
        Incoming { epoch, is_last_applied: true }
    }

    const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];

    // 2P-17
    #[test]
    fn a_new_commit_is_applied() {
        for role in BOTH {
            assert_eq!(on_request(view(role, false), incoming(EPOCH)), OnRequest::Apply);
        }
    }

    // 2P-18
    #[test]
    fn the_initial_responder_yields_when_requests_cross() {
        let own = view(Role::Responder, true);
        assert_eq!(on_request(own, incoming(EPOCH)), OnRequest::DropOwnThenApply);
    }

    // 2P-18
    #[test]
    fn the_initial_initiator_insists_when_requests_cross() {
        let own = view(Role::Initiator, true);
        assert_eq!(on_request(own, incoming(EPOCH)), OnRequest::KeepOwn);
    }

    // 2P-21
    #[test]
    fn a_commit_that_builds_on_ours_shows_that_the_peer_has_it() {
        for role in BOTH {
            let own = view(role, true);
            assert_eq!(on_request(own, incoming(EPOCH + 1)), OnRequest::MergeOwnThenApply);
            let own = view(role, false);
            assert_eq!(on_request(own, incoming(EPOCH + 1)), OnRequest::Refuse);
        }
    }

    // 2P-16, 2P-21
    #[test]
    fn a_repeated_commit_is_answered_again() {
        for role in BOTH {
            for outbox in [false, true] {
                let own = view(role, outbox);
                assert_eq!(on_request(own, repeated(EPOCH - 1)), OnRequest::Repeat);
                assert_eq!(on_request(own, incoming(EPOCH - 1)), OnRequest::Refuse);
            }
        }
    }

    // 2P-21: found by the model.
    #[test]
    fn what_was_sent_as_a_request_is_only_ever_sent_as_one() {
        for role in BOTH {
            let own = View { requested: true, ..view(role, true) };
            assert_eq!(on_request(own, repeated(EPOCH - 1)), OnRequest::KeepOwn);
            assert_eq!(on_request(own, incoming(EPOCH - 1)), OnRequest::Refuse);
        }
    }

    // 2P-21: the table is total, also at the ends of the numbers.
    #[test]
    fn everything_else_is_out_of_step() {
        for role in BOTH {
            for outbox in [false, true] {
                let own = view(role, outbox);
                for epoch in [0, EPOCH - 2, EPOCH + 2, u64::MAX] {
                    assert_eq!(on_request(own, incoming(epoch)), OnRequest::Refuse);
                    assert_eq!(on_request(own, repeated(epoch)), OnRequest::Refuse);
                }
                let last = View { epoch: u64::MAX, ..own };
                assert_eq!(on_request(last, incoming(0)), OnRequest::Refuse);
                let first = View { epoch: 0, ..own };
                assert_eq!(on_request(first, repeated(u64::MAX)), OnRequest::Refuse);
            }
        }
    }

    // 2P-16
    #[test]
    fn only_a_commit_on_top_of_ours_answers() {
        for role in BOTH {
            for epoch in [0, EPOCH - 1, EPOCH, EPOCH + 2] {
                assert!(!answers(view(role, true), incoming(epoch)));
            }
            assert!(answers(view(role, true), incoming(EPOCH + 1)));
            assert!(!answers(view(role, false), incoming(EPOCH + 1)));
        }
    }
}
