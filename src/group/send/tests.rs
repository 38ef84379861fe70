//! Send Groups without the machine around them.

use std::time::SystemTime;

use super::*;

const SUITE: CipherSuite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const PARAMETERS: &[u8] = b"parameters";

/// Members with a Send Group each; `groups[a][b]` is b's view of a's.
struct Members {
    groups: Vec<Vec<SendGroup>>,
}

fn members(count: usize) -> Members {
    let now = SystemTime::now();
    let crypto = CryptoProvider::default();
    let identities: Vec<_> =
        (0..count).map(|i| Identity::generate(&format!("member{i}")).unwrap()).collect();
    let packages: Vec<_> = identities
        .iter()
        .map(|identity| KeyPackages::new(&crypto, &[SUITE], identity, now).unwrap())
        .collect();
    let groups = (0..count).map(|owner| {
        let others: Vec<_> = (0..count).filter(|other| *other != owner).collect();
        let parsed = others
            .iter()
            .map(|&i| {
                let message = &packages[i].messages()[0];
                MemberKeyPackage::parse(&crypto, &[SUITE], message, now).unwrap()
            })
            .collect();
        let id = format!("group{owner}");
        let plan = NewSendGroup { id: id.as_bytes(), parameters: PARAMETERS, members: parsed };
        let identity = &identities[owner];
        let (group, welcome) =
            SendGroup::create(&crypto, SUITE, identity, plan, Retention::Epochs, now).unwrap();
        let mut views: Vec<_> = others
            .iter()
            .map(|&i| {
                let joined =
                    packages[i].open_welcome(&[SUITE], &welcome, count, Retention::Epochs).unwrap();
                assert_eq!((joined.id(), joined.parameters()), (id.as_bytes(), PARAMETERS));
                joined.join().unwrap()
            })
            .collect();
        views.insert(owner, group);
        views
    });
    Members { groups: groups.collect() }
}

fn leaf_in(owner: usize, member: usize) -> u32 {
    u32::try_from(if member < owner { member + 1 } else { member }).unwrap()
}

impl Members {
    fn owner(&mut self, owner: usize) -> &mut SendGroup {
        &mut self.groups[owner][owner]
    }

    /// A member verifies a commit of the owner, signed by it together with the proposals.
    fn stage(
        &mut self,
        owner: usize,
        member: usize,
        proposals: &[Vec<u8>],
        commit: &[u8],
        psks: &[Psk<'_>],
    ) -> Result<StagedSendCommit, Error> {
        let signature = self.owner(owner).sign_commit(proposals, commit)?;
        self.groups[owner][member].stage(proposals, commit, &signature, psks)
    }

    /// All others apply a commit of the owner.
    fn deliver(&mut self, owner: usize, proposals: &[Vec<u8>], commit: &[u8], psks: &[Psk<'_>]) {
        let count = self.groups.len();
        for member in (0..count).filter(|member| *member != owner) {
            let staged = self.stage(owner, member, proposals, commit, psks).unwrap();
            self.groups[owner][member].apply(staged).unwrap();
        }
        let authenticator = |group: &SendGroup| group.export("test", &[], 32).unwrap();
        let expected = authenticator(&self.groups[owner][owner]);
        assert!(self.groups[owner].iter().all(|group| authenticator(group) == expected));
    }

    fn update(&mut self, owner: usize) -> LeafSeed {
        let plan = CommitPlan { update: true, ..CommitPlan::default() };
        let (commit, seed) = self.owner(owner).commit(plan).unwrap();
        self.deliver(owner, &[], &commit, &[]);
        seed.unwrap()
    }
}

fn private_keys(group: &SendGroup) -> usize {
    group.provider.storage.encryption_keys()
}

// DM-01, DM-09
#[test]
fn the_owner_is_at_leaf_0_and_everyone_opens_what_it_seals() {
    let mut members = members(4);
    let sealed = members.owner(1).seal(b"aad".to_vec(), b"hello").unwrap();
    for member in [0, 2, 3] {
        let group = &mut members.groups[1][member];
        let opened = group.open(&sealed).unwrap();
        assert_eq!(
            (&opened.authenticated_data[..], &opened.data[..]),
            (&b"aad"[..], &b"hello"[..])
        );
        assert!(group.open(&sealed).is_err(), "it opened twice");
    }
}

// DM-01
#[test]
fn what_another_member_sends_or_commits_is_refused() {
    let mut members = members(3);
    let sealed = members.groups[0][1].seal(Vec::new(), b"not mine").unwrap();
    let error = members.groups[0][2].open(&sealed).err().unwrap();
    assert_eq!(error, PeerMisbehaved::NotTheOwner.into());
    let plan = CommitPlan { update: true, ..CommitPlan::default() };
    let (commit, _) = members.groups[0][1].commit(plan).unwrap();
    let error = members.stage(0, 2, &[], &commit, &[]).err().unwrap();
    assert_eq!(error, PeerMisbehaved::NotTheOwner.into());
}

// DM-05, DM-06, DM-08: the leaf that comes with a PSK is the one of the update, in a group with other
// places.
#[test]
fn a_leaf_is_replaced_by_the_one_of_the_update() {
    let mut members = members(4);
    let seed = members.update(2);
    let psk = members.groups[2][0].export("exporter-psk", b"psk_id", 32).unwrap();
    assert_eq!(psk, members.groups[2][3].export("exporter-psk", b"psk_id", 32).unwrap());

    let proposal = members.groups[0][2].propose_leaf(&seed, b"k".to_vec()).unwrap();
    let received = members.owner(0).receive_proposal(&proposal).unwrap();
    assert_eq!(received.leaf_index, leaf_in(0, 2));
    let psks = [Psk { id: b"psk of 2", secret: &psk }];
    let plan = CommitPlan {
        psks: psks.to_vec(),
        leaves: vec![&received],
        authenticated_data: b"commit".to_vec(),
        ..CommitPlan::default()
    };
    let (commit, own_seed) = members.owner(0).commit(plan).unwrap();
    assert!(own_seed.is_some(), "an Update proposal needs a path");
    for member in 1..4 {
        let proposals = std::slice::from_ref(&proposal);
        let staged = members.stage(0, member, proposals, &commit, &psks).unwrap();
        let group = &mut members.groups[0][member];
        assert_eq!(staged.psks, [b"psk of 2"]);
        assert!(staged.leaves[&leaf_in(0, 2)] == received.leaf);
        group.apply(staged).unwrap();
    }

    let own = members.groups[2][2].leaf(OWNER_LEAF).unwrap();
    for member in 0..4 {
        assert!(members.groups[0][member].leaf(leaf_in(0, 2)).unwrap() == own);
        // Nothing but the keys of the epoch is left.
        assert_eq!(private_keys(&members.groups[0][member]), 0);
    }
    // The replaced leaf is one that its owner can receive with.
    members.update(0);
}

// DM-06: the owner moved on, and the same key is signed again.
#[test]
fn a_proposal_is_signed_again_when_the_owner_has_moved_on() {
    let mut members = members(3);
    let seed = members.update(1);
    let stale = members.groups[0][1].propose_leaf(&seed, Vec::new()).unwrap();
    members.update(0);
    assert_eq!(private_keys(&members.groups[0][1]), 0, "the private key of a dead proposal stayed");
    let error = members.owner(0).receive_proposal(&stale).err().unwrap();
    assert_eq!(error, PeerMisbehaved::CommitForWrongEpoch.into());
    let fresh = members.groups[0][1].propose_leaf(&seed, Vec::new()).unwrap();
    let received = members.owner(0).receive_proposal(&fresh).unwrap();
    assert!(members.groups[1][1].leaf(OWNER_LEAF).unwrap() == Some(received.leaf.clone()));
    let plan = CommitPlan { leaves: vec![&received], ..CommitPlan::default() };
    let (commit, _) = members.owner(0).commit(plan).unwrap();
    members.deliver(0, &[fresh], &commit, &[]);
}

// DM-08
#[test]
fn pre_shared_keys_alone_need_no_path() {
    let mut members = members(3);
    members.update(1);
    let secret = members.groups[1][0].export("exporter-psk", b"psk_id", 32).unwrap();
    let psks = [Psk { id: b"psk", secret: &secret }];
    let before = members.groups[0][0].leaf(OWNER_LEAF).unwrap();
    let plan = CommitPlan { psks: psks.to_vec(), ..CommitPlan::default() };
    let (commit, seed) = members.owner(0).commit(plan).unwrap();
    assert!(seed.is_none() && members.groups[0][0].leaf(OWNER_LEAF).unwrap() == before);
    // Without the key nobody follows, and the attempt leaves no trace.
    assert!(members.stage(0, 2, &[], &commit, &[]).is_err());
    let wrong = [Psk { id: b"psk", secret: &[0; 32] }];
    assert!(members.stage(0, 2, &[], &commit, &wrong).is_err());
    members.deliver(0, &[], &commit, &psks);
}

// DM-19: an owner is not hindered by what others propose.
#[test]
fn leaves_that_do_not_fit_together_are_left_out() {
    let mut members = members(3);
    let seed = LeafSeed::new(Zeroizing::new(vec![7; 32]));
    let proposals =
        [1, 2].map(|member| members.groups[0][member].propose_leaf(&seed, Vec::new()).unwrap());
    let received = [0, 1].map(|i| members.owner(0).receive_proposal(&proposals[i]).unwrap());
    let plan = CommitPlan { leaves: received.iter().collect(), ..CommitPlan::default() };
    let error = members.owner(0).commit(plan).err().unwrap();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::InvalidLeaf(_))), "{error}");
    let plan = CommitPlan { leaves: vec![&received[1]], ..CommitPlan::default() };
    let (commit, _) = members.owner(0).commit(plan).unwrap();
    members.deliver(0, &proposals[1..], &commit, &[]);
}

// DM-19
#[test]
fn the_owner_bounds_what_others_propose() {
    let mut members = members(3);
    let seed = members.update(1);
    for _ in 0..MAX_PROPOSALS_OF_EPOCH {
        let proposal = members.groups[0][1].propose_leaf(&seed, Vec::new()).unwrap();
        members.owner(0).receive_proposal(&proposal).unwrap();
    }
    let proposal = members.groups[0][1].propose_leaf(&seed, Vec::new()).unwrap();
    assert!(members.owner(0).receive_proposal(&proposal).is_err());
    for _ in 0..=FORWARD_OF_OWNER {
        members.groups[0][2].propose_leaf(&seed, Vec::new()).unwrap();
    }
    let skipping = members.groups[0][2].propose_leaf(&seed, Vec::new()).unwrap();
    assert!(members.owner(0).receive_proposal(&skipping).is_err());
}

// DM-12
#[test]
fn a_removed_member_learns_it() {
    let mut members = members(4);
    let removed = leaf_in(0, 2);
    let plan = CommitPlan { removals: vec![removed], ..CommitPlan::default() };
    let (commit, _) = members.owner(0).commit(plan).unwrap();
    for member in 1..4 {
        let staged = members.stage(0, member, &[], &commit, &[]).unwrap();
        assert_eq!((&staged.removals[..], staged.self_removed), (&[removed][..], member == 2));
        members.groups[0][member].apply(staged).unwrap();
    }
    let sealed = members.owner(0).seal(Vec::new(), b"without 2").unwrap();
    assert!(members.groups[0][2].open(&sealed).is_err());
    assert!(members.groups[0][1].open(&sealed).is_ok());
}

#[test]
fn sealing_writes_no_more_in_a_larger_group_and_a_snapshot_goes_on_with_a_commit() {
    let mut members = members(5);
    members.update(3);
    let before = members.owner(3).snapshot().unwrap();
    for _ in 0..3 {
        let sealed = members.owner(3).seal(Vec::new(), b"data").unwrap();
        for member in [0, 1, 2, 4] {
            members.groups[3][member].open(&sealed).unwrap();
        }
    }
    assert_eq!(members.owner(3).snapshot().unwrap(), before, "a message was written down");
    for member in 0..5 {
        let group = &members.groups[3][member];
        let restored = SendGroup::restore(
            &group.snapshot().unwrap(),
            group.id(),
            SUITE,
            &group.identity,
            &group.provider.crypto,
        );
        members.groups[3][member] = restored.unwrap();
    }
    members.update(3);
    let sealed = members.owner(3).seal(Vec::new(), b"again").unwrap();
    assert_eq!(*members.groups[3][1].open(&sealed).unwrap().data, *b"again");
}

// DM-13: the ratchet of a long epoch is stored now and then, or a restored member would be too far behind.
#[test]
fn a_member_that_is_restored_in_a_long_epoch_need_not_turn_the_ratchet_from_its_beginning() {
    let mut members = members(2);
    let mut first = None;
    for _ in 0..STORED_RATCHETS {
        let sealed = members.owner(0).seal(Vec::new(), b"data").unwrap();
        members.groups[0][1].open(&sealed).unwrap();
        first.get_or_insert(sealed);
    }
    let snapshot = members.groups[0][1].snapshot().unwrap();
    let last = members.owner(0).seal(Vec::new(), b"data").unwrap();
    let group = &members.groups[0][1];
    let crypto = CryptoProvider::default();
    let mut restored =
        SendGroup::restore(&snapshot, b"group0", SUITE, &group.identity, &crypto).unwrap();
    assert!(restored.open(&first.unwrap()).is_err(), "the ratchet stands at its beginning");
    restored.open(&last).unwrap();
}

// DM-19: nobody could ever commit again in a group with such a leaf.
#[test]
fn a_leaf_to_which_nothing_can_be_encrypted_is_refused() {
    let identity = Identity::generate("member").unwrap();
    let now = SystemTime::now();
    let mut forged = crate::group::tests::ForgedHello::new(&identity, Vec::new(), now);
    forged.leaf_extensions = vec![(UNIVERSE_PARAMETERS, Vec::new())];
    forged.extensions = vec![10, UNIVERSE_PARAMETERS];
    let crypto = CryptoProvider::default();
    let parse = |forged: &crate::group::tests::ForgedHello| {
        MemberKeyPackage::parse(&crypto, &[SUITE], &forged.encode(), now)
    };
    assert!(parse(&forged).is_ok());
    forged.encryption_key = vec![0; 32];
    assert_eq!(parse(&forged).err(), Some(PeerMisbehaved::InvalidKeyPackage.into()));
}

// DM-19: whoever passes a commit on can put other proposals beside it, and those can be opened once.
#[test]
fn proposals_are_looked_at_only_if_the_owner_has_signed_for_them() {
    let mut members = members(3);
    let seed = members.update(1);
    let first = members.groups[0][1].propose_leaf(&seed, Vec::new()).unwrap();
    let later = members.groups[0][1].propose_leaf(&seed, Vec::new()).unwrap();
    let received = members.owner(0).receive_proposal(&first).unwrap();
    let plan = CommitPlan { leaves: vec![&received], ..CommitPlan::default() };
    let (commit, _) = members.owner(0).commit(plan).unwrap();
    let signature = members.owner(0).sign_commit(std::slice::from_ref(&first), &commit).unwrap();
    let group = &mut members.groups[0][2];
    for (proposals, signature) in
        [(vec![later], &signature), (vec![first.clone()], &vec![0; 64]), (Vec::new(), &signature)]
    {
        let error = group.stage(&proposals, &commit, signature, &[]).err().unwrap();
        assert_eq!(error, PeerMisbehaved::InvalidCommit.into());
    }
    let staged = group.stage(&[first], &commit, &signature, &[]).unwrap();
    group.apply(staged).unwrap();
}
