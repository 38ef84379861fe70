//! Attacks with the group of a ServerHello, by a responder that makes what it must not make, or by
//! anybody else who can answer a hello (2P-05, TL-06, CH-10).

use std::sync::Mutex;

use super::{attack::inject_plain, schedules::Rng, *};
use crate::{
    auth::AuthenticationError,
    error::{InvalidMessage, PeerMisbehaved},
    group::tests::{
        ForgedHello, Oddity, forge_group_info, forge_welcome, leaf_of, parent_node, replace_tree,
        resign_group_info, unvector, vector,
    },
    wire::{ContentType, GroupParameters, TwoPartyMessage, encode_plaintext},
};

/// An initiator that has said hello, and what a malicious responder knows then.
struct Greeted {
    pair: Pair,
    identities: Identities,
    /// The MLSMessage of the hello.
    hello: Vec<u8>,
    parameters: GroupParameters,
}

impl Greeted {
    fn new() -> Self {
        Self::with(CryptoProvider::default())
    }

    fn with(crypto: CryptoProvider) -> Self {
        let identities = Identities::new();
        let client = identities.client().alpn_protocols(["h2"]).crypto_provider(crypto);
        let mut pair = Pair::new(client, identities.server());
        let hello = pair.intercept(Role::Initiator);
        let crypto = CryptoProvider::default();
        let parameters = GroupParameters {
            client_hello_hash: crypto.hash(CipherSuite::ALL[0], &hello[5..]).unwrap(),
            alpn: vec![],
            max_message_size: 65536,
        };
        Self { pair, identities, hello: hello[9..].to_vec(), parameters }
    }

    fn forge(&self, oddity: Oddity) -> Vec<u8> {
        forge_welcome(&self.identities.server, &self.hello, &self.parameters, oddity)
    }

    /// A Welcome with another GroupInfo, signed by `signing` after the change.
    fn forge_info(
        &self,
        signing: &Identity,
        change: impl Fn(&mut Vec<u8>) + Send + Sync,
    ) -> Vec<u8> {
        let server = &self.identities.server;
        forge_group_info(server, &self.hello, &self.parameters, Oddity::Nothing, |info| {
            resign_group_info(signing, info, &change)
        })
    }

    fn answer(&mut self, welcome: Vec<u8>) {
        let message = TwoPartyMessage::ServerHello { welcome };
        inject_plain(&mut self.pair, Role::Initiator, &message);
    }

    fn assert_refused(mut self, welcome: Vec<u8>, error: impl Into<Error>) {
        self.answer(welcome);
        assert!(self.pair.initiator.events.is_empty());
        self.pair.assert_failed(Role::Initiator, error);
    }
}

// The control for the tests below: a forged group in which nothing is wrong is joined.
#[test]
fn a_forged_group_without_a_fault_is_joined() {
    let mut greeted = Greeted::new();
    greeted.parameters.alpn = b"h2".to_vec();
    let welcome = greeted.forge(Oddity::Nothing);
    greeted.answer(welcome);
    assert_eq!(greeted.pair.initiator.error, None);
    greeted.pair.initiator.expect(Event::HandshakeComplete);

    let mut greeted = Greeted::new();
    let welcome = greeted.forge_info(&greeted.identities.server, |_| {});
    greeted.answer(welcome);
    greeted.pair.initiator.expect(Event::HandshakeComplete);
}

// 2P-05, TL-06
#[test]
pub(super) fn a_group_that_the_profile_does_not_prescribe_is_refused() {
    let unexpected = |reason| Error::from(PeerMisbehaved::UnexpectedGroup(reason));
    for (oddity, error) in [
        (Oddity::ThirdMember, unexpected("not exactly two members")),
        (Oddity::CreatorLeft, unexpected("a parent node")),
        (Oddity::LaterEpoch, unexpected("not the first epoch")),
        (Oddity::ExtraExtension, unexpected("unknown extensions")),
        (Oddity::NoParameters, PeerMisbehaved::MissingTransportParameters("group context").into()),
        (Oddity::ForSomebodyElse, PeerMisbehaved::InvalidWelcome.into()),
    ] {
        let greeted = Greeted::new();
        let welcome = greeted.forge(oddity);
        greeted.assert_refused(welcome, error);
    }
}

// 2P-05
#[test]
fn a_group_for_another_hello_is_refused() {
    // Made for the KeyPackage of another connection of the same initiator.
    let other = Greeted::new();
    let greeted = Greeted::new();
    let welcome = other.forge(Oddity::Nothing);
    greeted.assert_refused(welcome, PeerMisbehaved::InvalidWelcome);

    // Made for this KeyPackage, with the hash of another hello.
    let mut greeted = Greeted::new();
    greeted.parameters.client_hello_hash = other.parameters.client_hello_hash;
    let welcome = greeted.forge(Oddity::Nothing);
    greeted.assert_refused(welcome, PeerMisbehaved::UnexpectedGroup("made for another hello"));

    // Made for the hello before the one that counts: the initiator was told to offer another suite.
    let mut greeted = Greeted::new();
    let welcome = greeted.forge(Oddity::Nothing);
    greeted.pair.inject(Role::Initiator, &[21, 3, 3, 0, 2, 2, 40]);
    drop(greeted.pair.intercept(Role::Initiator));
    greeted.assert_refused(welcome, PeerMisbehaved::UnexpectedGroup("another cipher suite"));
}

// 2P-05
#[test]
fn parameters_that_were_not_offered_are_refused() {
    let mut greeted = Greeted::new();
    greeted.parameters.alpn = b"h3".to_vec();
    let welcome = greeted.forge(Oddity::Nothing);
    greeted.assert_refused(welcome, PeerMisbehaved::UnofferedAlpn);

    for id in [2, 3, 0x7777_u16] {
        let greeted = Greeted::new();
        let mut welcome = greeted.forge(Oddity::Nothing);
        welcome[4..6].copy_from_slice(&id.to_be_bytes());
        let error = match id {
            0x7777 => Error::from(InvalidMessage::Malformed("Welcome")),
            _ => PeerMisbehaved::UnexpectedGroup("another cipher suite").into(),
        };
        greeted.assert_refused(welcome, error);
    }
}

// 2P-05, CH-10: HPKE and AEAD ciphertexts of lengths that none can have, for either provider.
#[test]
fn a_welcome_that_cannot_be_decrypted_is_refused() {
    let lengths = [0, 1, 15, 16, 31, 32, 33, 5000];
    for crypto in [CryptoProvider::default(), CryptoProvider::rust_crypto()] {
        for (field, length) in (0..4).flat_map(|field| lengths.map(|length| (field, length))) {
            let greeted = Greeted::with(crypto.clone());
            let genuine = greeted.forge(Oddity::Nothing);
            // Version, wire format, suite; then the secrets of one member, and the GroupInfo.
            let (head, rest) = genuine.split_at(6);
            let (secrets, rest) = unvector(rest);
            let (member, secrets) = unvector(secrets);
            let (kem_output, secrets) = unvector(secrets);
            let mut fields = [member, kem_output, unvector(secrets).0, unvector(rest).0];
            let zeros = vec![0; length];
            fields[field] = &zeros;
            let [member, kem_output, ciphertext, group_info] = fields.map(vector);
            let secrets = vector(&[member, kem_output, ciphertext].concat());
            let welcome = [head, &secrets, &group_info].concat();
            greeted.assert_refused(welcome, PeerMisbehaved::InvalidWelcome);
        }
    }
}

// 2P-05
#[test]
fn a_group_of_the_wrong_creator_is_refused() {
    let stranger = Identity::generate(SERVER_NAME).unwrap();
    // A stranger, honestly.
    let greeted = Greeted::new();
    let welcome = forge_welcome(&stranger, &greeted.hello, &greeted.parameters, Oddity::Nothing);
    greeted.assert_refused(welcome, AuthenticationError::UnknownKey);

    // The responder's group, with a GroupInfo that a stranger has signed.
    let greeted = Greeted::new();
    let welcome = greeted.forge_info(&stranger, |_| {});
    greeted.assert_refused(welcome, PeerMisbehaved::InvalidWelcome);

    // The same, and the GroupInfo names another signer: the initiator, a blank leaf, none.
    for signer in [1, 2, 3, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for signing in [&stranger, &Identities::new().server] {
            let greeted = Greeted::new();
            let welcome = greeted.forge_info(signing, |info| {
                let at = info.len() - 4;
                info[at..].copy_from_slice(&u32::to_be_bytes(signer));
            });
            greeted.assert_refused(welcome, PeerMisbehaved::InvalidWelcome);
        }
    }

    // A creator with the initiator's own signature key.
    let greeted = Greeted::new();
    let client = greeted.identities.client.clone();
    let leaf = ForgedHello::new(&client, vec![], greeted.pair.now.calendar).leaf();
    let own = leaf_of(&greeted.hello);
    let welcome = greeted.forge_info(&client, |info| {
        replace_tree(info, &[Some(leaf.clone()), None, Some(own.clone())]);
    });
    greeted.assert_refused(welcome, PeerMisbehaved::InvalidWelcome);
}

// 2P-05, CH-10
#[test]
fn a_second_server_hello_is_refused() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    pair.deliver(Role::Initiator);
    let hello = pair.intercept(Role::Responder);
    pair.inject(Role::Initiator, &hello);
    pair.initiator.expect(Event::HandshakeComplete);
    pair.deliver(Role::Initiator);
    pair.inject(Role::Initiator, &hello);
    pair.assert_failed(Role::Initiator, PeerMisbehaved::UnexpectedRecord("unprotected"));

    let mut pair = Pair::new(identities.client(), identities.server());
    pair.deliver(Role::Initiator);
    let hello = pair.intercept(Role::Responder);
    let twice = [&hello[5..], &hello[5..]].concat();
    let mut bytes = BytesMut::new();
    encode_plaintext(ContentType::Handshake, &twice, &mut bytes);
    pair.inject(Role::Initiator, &bytes);
    pair.assert_failed(Role::Initiator, PeerMisbehaved::MisalignedMessage);
}

// 2P-05, CH-10: bits and ends of the GroupInfo, changed by the responder itself, which signs and
// encrypts the result. One bit in six, as a seed says, keeps it short.
#[test]
fn no_changed_group_info_is_joined() {
    let length = Mutex::new(0);
    let greeted = Greeted::new();
    greeted.forge_info(&greeted.identities.server, |info| *length.lock().unwrap() = info.len());
    let length = *length.lock().unwrap();
    let refused = |name: String, change: &(dyn Fn(&mut Vec<u8>) + Send + Sync)| {
        let mut greeted = Greeted::new();
        let welcome = greeted.forge_info(&greeted.identities.server, change);
        greeted.answer(welcome);
        let error = greeted.pair.initiator.error.clone();
        let Some(Error::PeerMisbehaved(
            PeerMisbehaved::InvalidWelcome | PeerMisbehaved::UnexpectedGroup(_),
        )) = error
        else {
            panic!("{name}: {error:?}");
        };
    };
    let mut rng = Rng(5);
    for bit in (0..length * 8).filter(|_| rng.below(6) == 0) {
        refused(format!("bit {bit}"), &move |info| info[bit / 8] ^= 1 << (bit % 8));
    }
    for end in (0..length).step_by(3) {
        refused(format!("end {end}"), &move |info| info.truncate(end));
    }
}

// 2P-05, CH-10: ratchet trees that no honest responder makes.
#[test]
fn a_malformed_ratchet_tree_is_refused() {
    let stranger = Identity::generate("stranger").unwrap();
    let now = start().calendar;
    let leaf = |key| {
        let mut forged = ForgedHello::new(&stranger, vec![], now);
        forged.encryption_key = vec![key; 32];
        Some(forged.leaf())
    };
    let parent = |key, unmerged: &[u32]| Some(parent_node(key, unmerged));
    let trees = [
        ("no node", vec![]),
        ("a blank", vec![None]),
        ("blanks", vec![None, None, None]),
        ("one leaf", vec![leaf(1)]),
        ("no leaf at the end", vec![leaf(1), parent(2, &[])]),
        ("a parent at the end", vec![leaf(1), None, leaf(2), parent(3, &[])]),
        ("root", vec![leaf(1), parent(2, &[]), leaf(3)]),
        ("an unmerged leaf", vec![leaf(1), parent(2, &[1]), leaf(3)]),
        ("both unmerged", vec![leaf(1), parent(2, &[0, 1]), leaf(3)]),
        ("one twice", vec![leaf(1), parent(2, &[1, 1]), leaf(3)]),
        ("not in order", vec![leaf(1), parent(2, &[1, 0]), leaf(3)]),
        ("one outside", vec![leaf(1), parent(2, &[2]), leaf(3)]),
        ("one far outside", vec![leaf(1), parent(2, &[u32::MAX]), leaf(3)]),
        ("one of another branch", vec![leaf(1), parent(2, &[2]), leaf(3), None, leaf(4)]),
        ("large", vec![leaf(1), None, leaf(2), None, leaf(3), None, leaf(4), None, leaf(5)]),
    ];
    for (name, tree) in trees {
        let mut greeted = Greeted::new();
        let welcome =
            greeted.forge_info(&greeted.identities.server, |info| replace_tree(info, &tree));
        greeted.answer(welcome);
        let Some(Error::PeerMisbehaved(
            error @ (PeerMisbehaved::InvalidWelcome | PeerMisbehaved::UnexpectedGroup(_)),
        )) = greeted.pair.initiator.error
        else {
            panic!("{name}: {:?}", greeted.pair.initiator.error);
        };
        greeted.pair.assert_failed(Role::Initiator, error);
    }
}

// 2P-05, CH-10: OpenMLS meets a blank unmerged leaf with a debug assertion. The tree is looked at
// before anything of it is authenticated, so anybody who answers the hello can send it.
#[test]
fn a_blank_unmerged_leaf_is_refused() {
    let stranger = Identity::generate("stranger").unwrap();
    let greeted = Greeted::new();
    let leaf = |key| {
        let mut forged = ForgedHello::new(&stranger, vec![], greeted.pair.now.calendar);
        forged.encryption_key = vec![key; 32];
        Some(forged.leaf())
    };
    let parent = |key, unmerged: &[u32]| Some(parent_node(key, unmerged));
    // Leaf 2 is blank, and the node above leaves 2 and 3 says that it is unmerged.
    let tree = [leaf(1), None, leaf(2), parent(3, &[]), None, parent(4, &[2]), leaf(5)];
    let welcome = greeted.forge_info(&stranger, |info| replace_tree(info, &tree));
    let error = PeerMisbehaved::UnexpectedGroup("not exactly two members");
    greeted.assert_refused(welcome, error);
}
