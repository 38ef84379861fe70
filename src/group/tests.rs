//! A malicious peer: messages that the code of this crate would never make.
//!
//! The attacks with them are in the tests of the two-party machine, which sees what a victim sees.
//! A hello is encoded by hand, byte for byte; Welcomes and commits come out of OpenMLS, with wrong
//! arguments or with a [`Liar`] for its cryptography.

mod liar;

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use openmls::prelude::{
    Extensions, KeyPackage, KeyPackageIn, LeafNodeIndex, LeafNodeParameters, Lifetime, MlsGroup,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, NewSignerBundle,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProtocolVersion, RequiredCapabilitiesExtension,
    tls_codec::DeserializeBytes as _,
};

use self::liar::{Liar, LyingProvider, Witness};
use super::{
    Extension, ExtensionType, Group, INITIATOR_LEAF, Provider, RESPONDER_LEAF, WIRE_FORMAT,
    capabilities, ciphersuite, credential, parameters_extension, signer, storage::Storage,
};
use crate::{
    auth::Role,
    crypto::{CipherSuite, CryptoProvider},
    identity::Identity,
    wire::{GroupParameters, TRANSPORT_PARAMETERS},
};

/// The MLSMessage of a ClientHello, field by field. A new one is valid but for its HPKE keys, to
/// which nobody has the private half.
pub(crate) struct ForgedHello {
    pub(crate) name: Vec<u8>,
    /// 1: basic, 2: X.509.
    pub(crate) credential_type: u16,
    pub(crate) signature_key: Vec<u8>,
    /// Signs both structures.
    pub(crate) signing: Identity,
    pub(crate) suite: u16,
    pub(crate) suites: Vec<u16>,
    pub(crate) extensions: Vec<u16>,
    pub(crate) credentials: Vec<u16>,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// 1: a KeyPackage, 2: an Update proposal.
    pub(crate) source: u8,
    /// The extensions of the leaf.
    pub(crate) leaf_extensions: Vec<(u16, Vec<u8>)>,
    pub(crate) init_key: Vec<u8>,
    pub(crate) encryption_key: Vec<u8>,
}

impl ForgedHello {
    pub(crate) fn new(identity: &Identity, parameters: Vec<u8>, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self {
            name: identity.name().as_bytes().to_vec(),
            credential_type: 1,
            signature_key: identity.public_key().as_bytes().to_vec(),
            signing: identity.clone(),
            suite: 1,
            suites: vec![1],
            extensions: vec![TRANSPORT_PARAMETERS],
            credentials: vec![1],
            not_before: now - 60,
            not_after: now + 60,
            source: 1,
            leaf_extensions: vec![(TRANSPORT_PARAMETERS, parameters)],
            init_key: vec![9; 32],
            encryption_key: vec![10; 32],
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut key_package = numbers(&[1, self.suite]);
        key_package.extend(vector(&self.init_key));
        key_package.extend(self.leaf());
        key_package.extend(vector(&[]));
        key_package.extend(vector(&sign(&self.signing, "KeyPackageTBS", &key_package)));
        [numbers(&[1, 5]), key_package].concat()
    }

    /// The leaf node in the KeyPackage.
    pub(crate) fn leaf(&self) -> Vec<u8> {
        let mut leaf = vector(&self.encryption_key);
        leaf.extend(vector(&self.signature_key));
        leaf.extend(numbers(&[self.credential_type]));
        leaf.extend(vector(&self.name));
        for list in [&[1][..], &self.suites, &self.extensions, &[], &self.credentials] {
            leaf.extend(vector(&numbers(list)));
        }
        leaf.push(self.source);
        if self.source == 1 {
            leaf.extend([self.not_before.to_be_bytes(), self.not_after.to_be_bytes()].concat());
        }
        let extension = |(number, content): &(u16, Vec<u8>)| {
            [&number.to_be_bytes()[..], &vector(content)].concat()
        };
        let extensions: Vec<u8> = self.leaf_extensions.iter().flat_map(extension).collect();
        leaf.extend(vector(&extensions));
        leaf.extend(vector(&sign(&self.signing, "LeafNodeTBS", &leaf)));
        leaf
    }
}

/// What is wrong with the group of a Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    Nothing,
    ThirdMember,
    /// The creator has updated before it added the initiator.
    LaterEpoch,
    /// The creator has left: the member at leaf 1 adds the initiator at leaf 0.
    CreatorLeft,
    /// The group context has an extension beside the parameters.
    ExtraExtension,
    /// The group context has no parameters.
    NoParameters,
    /// The group is made for a KeyPackage of somebody else.
    ForSomebodyElse,
}

/// The MLSMessage of a ServerHello that answers `hello`, an MLSMessage.
pub(crate) fn forge_welcome(
    creator: &Identity,
    hello: &[u8],
    parameters: &GroupParameters,
    oddity: Oddity,
) -> Vec<u8> {
    forge_group_info(creator, hello, parameters, oddity, |info| info.to_vec())
}

/// As [`forge_welcome`], with `tamper` applied to the GroupInfo before it is encrypted.
pub(crate) fn forge_group_info(
    creator: &Identity,
    hello: &[u8],
    parameters: &GroupParameters,
    oddity: Oddity,
    tamper: impl Fn(&[u8]) -> Vec<u8> + Send + Sync,
) -> Vec<u8> {
    let suite = CipherSuite::ALL[0];
    let provider = provider();
    let crypto = &provider.crypto;
    let mut extensions = Vec::new();
    if oddity != Oddity::NoParameters {
        extensions.push(parameters_extension(parameters.encode().unwrap()));
    }
    if oddity == Oddity::ExtraExtension {
        let required = RequiredCapabilitiesExtension::default();
        extensions.push(Extension::RequiredCapabilities(required));
    }
    let mut group = MlsGroup::builder()
        .ciphersuite(ciphersuite(suite))
        .with_wire_format_policy(WIRE_FORMAT)
        .with_capabilities(capabilities(suite))
        .with_group_context_extensions(Extensions::from_vec(extensions).unwrap())
        .use_ratchet_tree_extension(true)
        .build(&provider, &signer(creator, crypto), credential(creator))
        .unwrap();
    let third = Identity::generate("third").unwrap();
    let (third_provider, third_package) = joiner(&third);
    let mut added = vec![key_package(hello)];
    let mut removed = vec![];
    match oddity {
        Oddity::ThirdMember => added.push(third_package),
        Oddity::ForSomebodyElse => added = vec![third_package],
        Oddity::LaterEpoch => {
            let signer = signer(creator, crypto);
            group.self_update(&provider, &signer, LeafNodeParameters::default()).unwrap();
            group.merge_pending_commit(&provider).unwrap();
        }
        Oddity::CreatorLeft => {
            let signer = signer(creator, crypto);
            let (_, welcome, _) = group.add_members(&provider, &signer, &[third_package]).unwrap();
            group = join(&third_provider, &welcome);
            removed.push(LeafNodeIndex::new(RESPONDER_LEAF));
        }
        Oddity::Nothing | Oddity::ExtraExtension | Oddity::NoParameters => {}
    }
    let (provider, committer) = match oddity {
        Oddity::CreatorLeft => (&third_provider, &third),
        _ => (&provider, creator),
    };
    let crypto = &provider.crypto;
    let liar = Liar::new(crypto, tamper);
    group
        .commit_builder()
        .propose_removals(removed)
        .propose_adds(added)
        .load_psks(&provider.storage)
        .unwrap()
        .use_ratchet_tree_extension(true)
        .build(crypto, &liar, &signer(committer, crypto), |_| true)
        .unwrap()
        .stage_commit(provider)
        .unwrap()
        .to_welcome_msg()
        .unwrap()
        .to_bytes()
        .unwrap()
}

/// Applies `change` to the content of a GroupInfo, and signs it again.
pub(crate) fn resign_group_info(
    signing: &Identity,
    info: &[u8],
    change: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    // The signature, 64 bytes with their length in two.
    let mut content = info[..info.len() - 66].to_vec();
    change(&mut content);
    let signature = vector(&sign(signing, "GroupInfoTBS", &content));
    [content, signature].concat()
}

/// Puts another ratchet tree into the content of a GroupInfo. A node comes without its type: even
/// places are leaves.
pub(crate) fn replace_tree(content: &mut Vec<u8>, nodes: &[Option<Vec<u8>>]) {
    let mut rest = unvector(&content[4..]).1;
    rest = &rest[8..];
    for _tree_hash_transcript_hash_and_extensions in 0..3 {
        rest = unvector(rest).1;
    }
    let at = content.len() - rest.len();
    let tree: Vec<u8> = [1, 2]
        .into_iter()
        .cycle()
        .zip(nodes)
        .flat_map(|(node_type, node)| match node {
            Some(node) => [&[1, node_type], &node[..]].concat(),
            None => vec![0],
        })
        .collect();
    let extension = [&numbers(&[2])[..], &vector(&vector(&tree))].concat();
    let behind = unvector(rest).1.to_vec();
    content.truncate(at);
    content.extend(vector(&extension));
    content.extend(behind);
}

/// A parent node with a key that nobody has.
pub(crate) fn parent_node(key: u8, unmerged_leaves: &[u32]) -> Vec<u8> {
    let unmerged: Vec<u8> = unmerged_leaves.iter().flat_map(|leaf| leaf.to_be_bytes()).collect();
    [vector(&[key; 32]), vector(&[]), vector(&unmerged)].concat()
}

/// The leaf node in the MLSMessage of a hello.
pub(crate) fn leaf_of(hello: &[u8]) -> Vec<u8> {
    let (_, leaf) = unvector(&hello[8..]);
    // Behind it: no extensions, and a signature.
    leaf[..leaf.len() - 1 - 66].to_vec()
}

/// A message of the group that is no proper update.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forgery<'a> {
    /// A commit that adds a third member, without an update path.
    Add,
    /// A commit that adds a third member, with an update path.
    AddWithPath,
    /// A commit that removes the receiver.
    Remove,
    /// A commit that changes the parameters in the group context.
    GroupContextExtensions,
    /// A self-update signed with another key than the sender's.
    SignedBy(&'a Identity),
    /// A self-update whose leaf has these transport parameters, or none.
    Leaf(Option<&'a [u8]>),
    /// A self-update that installs another credential and key.
    Become(&'a Identity),
    /// A self-update as a PublicMessage.
    PublicMessage,
    Application,
    Proposal,
}

impl Group {
    /// Makes a message for the peer. A commit stays pending.
    pub(crate) fn forge(&mut self, forgery: Forgery<'_>) -> Vec<u8> {
        self.forge_with(forgery, |content, _| content.to_vec())
    }

    /// As [`Group::forge`], with `tamper` applied to what the PrivateMessage encrypts. It is also
    /// given what was signed.
    pub(crate) fn forge_with(
        &mut self,
        forgery: Forgery<'_>,
        tamper: impl Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync,
    ) -> Vec<u8> {
        let Self { mls, provider, identity, role, .. } = self;
        let crypto = &provider.crypto;
        let own = signer(identity, crypto);
        match forgery {
            Forgery::Application => {
                let message = mls.create_message(provider, &own, b"application data").unwrap();
                return message.to_bytes().unwrap();
            }
            Forgery::Proposal => {
                let parameters = LeafNodeParameters::default();
                let (message, _) = mls.propose_self_update(provider, &own, parameters).unwrap();
                return message.to_bytes().unwrap();
            }
            _ => {}
        }
        let policy = match forgery {
            Forgery::PublicMessage => PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
            _ => WIRE_FORMAT,
        };
        let config = MlsGroupJoinConfig::builder().wire_format_policy(policy).build();
        mls.set_configuration(&provider.storage, &config).unwrap();
        let receiver = match role {
            Role::Initiator => RESPONDER_LEAF,
            Role::Responder => INITIATOR_LEAF,
        };
        let mut builder = mls.commit_builder().force_self_update(!matches!(forgery, Forgery::Add));
        builder = match forgery {
            Forgery::Add | Forgery::AddWithPath => {
                builder.propose_adds([joiner(&Identity::generate("third").unwrap()).1])
            }
            Forgery::Remove => builder.propose_removals([LeafNodeIndex::new(receiver)]),
            Forgery::GroupContextExtensions => {
                let marker = ExtensionType::Unknown(TRANSPORT_PARAMETERS);
                let required = RequiredCapabilitiesExtension::new(&[marker], &[], &[]);
                let extensions = Extensions::from_vec(vec![
                    parameters_extension(b"others".to_vec()),
                    Extension::RequiredCapabilities(required),
                ]);
                let extensions = extensions.unwrap();
                builder.propose_group_context_extensions(extensions).unwrap()
            }
            Forgery::Leaf(parameters) => {
                let extensions = parameters.map(|p| parameters_extension(p.to_vec()));
                let extensions = Extensions::from_vec(extensions.into_iter().collect()).unwrap();
                let leaf = LeafNodeParameters::builder().with_extensions(extensions).build();
                builder.leaf_node_parameters(leaf)
            }
            _ => builder,
        };
        let builder = builder.load_psks(&provider.storage).unwrap().create_group_info(false);
        let signing = match forgery {
            Forgery::SignedBy(other) => other,
            _ => &*identity,
        };
        let signed = Mutex::new(Vec::new());
        let witness = Witness { signer: signer(signing, crypto), signed: &signed };
        let tamper = |content: &[u8]| tamper(content, &signed.lock().unwrap());
        let liar = LyingProvider { liar: Liar::new(crypto, tamper), honest: provider };
        let built = match forgery {
            Forgery::Become(next) => {
                let signer = Witness { signer: signer(next, crypto), signed: &signed };
                let bundle =
                    NewSignerBundle { signer: &signer, credential_with_key: credential(next) };
                builder.build_with_new_signer(crypto, crypto, &witness, bundle, |_| true)
            }
            _ => builder.build(crypto, crypto, &witness, |_| true),
        };
        let message = built.unwrap().stage_commit(&liar).unwrap().into_commit();
        if let Forgery::Become(next) = forgery {
            *identity = next.clone();
        }
        message.to_bytes().unwrap()
    }
}

/// Applies `change` to the commit in what a PrivateMessage encrypts, and signs it again. For use
/// in [`Group::forge_with`].
pub(crate) fn resign_commit(
    signing: &Identity,
    content: &[u8],
    signed: &[u8],
    change: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    // Behind the commit: a signature of 64 bytes, a confirmation tag of 32, and no padding.
    let (commit, behind) = content.split_at(content.len() - 66 - 33);
    let (label, signed) = unvector(signed);
    assert_eq!(label, b"MLS 1.0 FramedContentTBS");
    let (signed, _) = unvector(signed);
    let at = signed.windows(commit.len()).position(|window| window == commit).unwrap();
    let mut changed = commit.to_vec();
    change(&mut changed);
    let signed = [&signed[..at], &changed, &signed[at + commit.len()..]].concat();
    let signature = vector(&sign(signing, "FramedContentTBS", &signed));
    [&changed, &signature, &behind[66..]].concat()
}

/// A party that could be added to a group, and what it needs to join.
fn joiner(identity: &Identity) -> (Provider, KeyPackage) {
    let provider = provider();
    let suite = CipherSuite::ALL[0];
    let bundle = KeyPackage::builder()
        .key_package_lifetime(Lifetime::new(3600))
        .leaf_node_capabilities(capabilities(suite))
        .build(
            ciphersuite(suite),
            &provider,
            &signer(identity, &provider.crypto),
            credential(identity),
        )
        .unwrap();
    (provider, bundle.into_key_package())
}

fn join(provider: &Provider, welcome: &MlsMessageOut) -> MlsGroup {
    let welcome = MlsMessageIn::tls_deserialize_exact_bytes(&welcome.to_bytes().unwrap()).unwrap();
    let MlsMessageBodyIn::Welcome(welcome) = welcome.extract() else { unreachable!() };
    let config = MlsGroupJoinConfig::builder().wire_format_policy(WIRE_FORMAT).build();
    openmls::prelude::StagedWelcome::new_from_welcome(provider, &config, welcome, None)
        .unwrap()
        .into_group(provider)
        .unwrap()
}

fn key_package(hello: &[u8]) -> KeyPackage {
    let package = KeyPackageIn::tls_deserialize_exact_bytes(&hello[4..]).unwrap();
    package.validate(&CryptoProvider::default(), ProtocolVersion::Mls10).unwrap()
}

/// The MLSMessage with a valid KeyPackage of somebody.
pub(crate) fn key_package_message(identity: &Identity) -> Vec<u8> {
    MlsMessageOut::from(joiner(identity).1).to_bytes().unwrap()
}

fn provider() -> Provider {
    Provider {
        crypto: CryptoProvider::default(),
        storage: Storage::new(super::Retention::Everything),
    }
}

/// SignWithLabel (RFC 9420, section 5.1.2).
fn sign(identity: &Identity, label: &str, content: &[u8]) -> Vec<u8> {
    let label = format!("MLS 1.0 {label}");
    let content = [vector(label.as_bytes()), vector(content)].concat();
    identity.key().sign(&CryptoProvider::default(), &content).unwrap()
}

/// A variable-size vector (RFC 9420, section 2.1.2).
pub(crate) fn vector(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let mut encoded = match length {
        0..0x40 => vec![u8::try_from(length).unwrap()],
        0x40..0x4000 => (0x4000 | u16::try_from(length).unwrap()).to_be_bytes().to_vec(),
        _ => (0x8000_0000 | length).to_be_bytes().to_vec(),
    };
    encoded.extend_from_slice(content);
    encoded
}

/// The content of the vector at the front, and what follows it.
pub(crate) fn unvector(encoded: &[u8]) -> (&[u8], &[u8]) {
    let (prefix, length) = prefix(encoded);
    encoded[prefix..].split_at(length)
}

/// How long the length of a vector is, and what it says.
fn prefix(encoded: &[u8]) -> (usize, usize) {
    let long = 1 << (encoded[0] >> 6);
    let first = usize::from(encoded[0] & 0x3f);
    (long, encoded[1..long].iter().fold(first, |length, byte| length << 8 | usize::from(*byte)))
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}
