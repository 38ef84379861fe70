//! Stock OpenMLS: a group of two with RustCrypto and the memory storage that comes with it.
//!
//! A rekey takes the messages that ours takes, in the clear, each behind its length: the commit,
//! the answer that names the new epoch, and an empty record that says that it is in use.

use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, LeafNodeParameters, MlsGroup,
    MlsGroupCreateConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider,
    ProcessedMessageContent, StagedWelcome,
    tls_codec::{DeserializeBytes, Serialize},
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::support::{Result, traffic::tcp_pair};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// Two members of one group, connected over TCP.
pub(crate) struct Pair {
    updater: End,
    answerer: End,
}

/// A member and its connection to the other.
struct End {
    member: Member,
    // Reads a message and its length with one system call.
    stream: BufReader<TcpStream>,
}

struct Member {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    group: MlsGroup,
}

/// Where the ratchet tree of a Welcome is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RatchetTree {
    /// In the Welcome, as the two-party profile has it. `self_update()` then makes a GroupInfo as
    /// well, which nobody reads.
    InWelcome,
    /// Handed over apart, which is the default.
    Apart,
}

impl Pair {
    pub(crate) async fn connect(tree: RatchetTree) -> Result<Self> {
        let (responder, initiator) = members(tree)?;
        let (near, far) = tcp_pair().await?;
        Ok(Self {
            updater: End { member: initiator, stream: BufReader::new(near) },
            answerer: End { member: responder, stream: BufReader::new(far) },
        })
    }

    /// Renews the keys of one member, `rekeys` times.
    pub(crate) async fn rekey(self, rekeys: usize) -> Result<Self> {
        let Self { mut updater, mut answerer } = self;
        let answering = tokio::spawn(async move {
            for _ in 0..rekeys {
                answerer.answer().await?;
            }
            Result::Ok(answerer)
        });
        for _ in 0..rekeys {
            updater.update().await?;
        }
        Ok(Self { updater, answerer: answering.await?? })
    }
}

impl End {
    async fn update(&mut self) -> Result<()> {
        let commit = self.member.start_update()?;
        self.send(&commit).await?;
        let answer = self.receive().await?;
        self.member.finish_update(&answer)?;
        self.send(&[]).await
    }

    async fn answer(&mut self) -> Result<()> {
        let commit = self.receive().await?;
        let answer = self.member.apply(&commit)?;
        self.send(&answer).await?;
        self.receive().await?;
        Ok(())
    }

    async fn send(&mut self, message: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(4 + message.len());
        frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
        frame.extend_from_slice(message);
        Ok(self.stream.write_all(&frame).await?)
    }

    async fn receive(&mut self) -> Result<Vec<u8>> {
        let length = self.stream.read_u32().await?;
        let mut message = vec![0; length.try_into()?];
        self.stream.read_exact(&mut message).await?;
        Ok(message)
    }
}

impl Member {
    fn start_update(&mut self) -> Result<Vec<u8>> {
        let commit =
            self.group.self_update(&self.provider, &self.signer, LeafNodeParameters::default())?;
        Ok(commit.into_commit().tls_serialize_detached()?)
    }

    fn finish_update(&mut self, answer: &[u8]) -> Result<()> {
        self.group.merge_pending_commit(&self.provider)?;
        if answer != self.epoch() {
            return Err("the answer names another epoch".into());
        }
        Ok(())
    }

    fn apply(&mut self, commit: &[u8]) -> Result<Vec<u8>> {
        let message = incoming(commit)?.try_into_protocol_message()?;
        let processed = self.group.process_message(&self.provider, message)?;
        let ProcessedMessageContent::StagedCommitMessage(commit) = processed.into_content() else {
            return Err("not a commit".into());
        };
        self.group.merge_staged_commit(&self.provider, *commit)?;
        Ok(self.epoch())
    }

    /// The group's id and epoch.
    fn epoch(&self) -> Vec<u8> {
        let epoch = self.group.epoch().as_u64().to_be_bytes();
        [self.group.group_id().as_slice(), &epoch].concat()
    }
}

/// The member that created the group, and the one that joined.
fn members(tree: RatchetTree) -> Result<(Member, Member)> {
    let in_welcome = matches!(tree, RatchetTree::InWelcome);
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .use_ratchet_tree_extension(in_welcome)
        .build();

    let (provider, signer, credential) = party("client")?;
    let key_package =
        KeyPackage::builder().build(SUITE, &provider, &signer, credential)?.key_package().clone();
    let initiator = (provider, signer);

    let (provider, signer, credential) = party("server")?;
    let mut group = MlsGroup::new(&provider, &signer, &config, credential)?;
    let (_, welcome, _) = group.add_members(&provider, &signer, &[key_package])?;
    group.merge_pending_commit(&provider)?;
    let tree = (!in_welcome).then(|| group.export_ratchet_tree().into());
    let responder = Member { provider, signer, group };

    let (provider, signer) = initiator;
    let MlsMessageBodyIn::Welcome(welcome) = incoming(&serialized(&welcome)?)?.extract() else {
        return Err("not a Welcome".into());
    };
    let group = StagedWelcome::new_from_welcome(&provider, config.join_config(), welcome, tree)?
        .into_group(&provider)?;
    Ok((responder, Member { provider, signer, group }))
}

fn party(name: &str) -> Result<(OpenMlsRustCrypto, SignatureKeyPair, CredentialWithKey)> {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm())
        .map_err(|_| "no signature key could be made")?;
    signer.store(provider.storage())?;
    let credential = CredentialWithKey {
        credential: BasicCredential::new(name.into()).into(),
        signature_key: signer.public().into(),
    };
    Ok((provider, signer, credential))
}

fn serialized(message: &MlsMessageOut) -> Result<Vec<u8>> {
    Ok(message.tls_serialize_detached()?)
}

fn incoming(bytes: &[u8]) -> Result<MlsMessageIn> {
    Ok(MlsMessageIn::tls_deserialize_exact_bytes(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_reach_the_same_epoch() {
        for tree in [RatchetTree::InWelcome, RatchetTree::Apart] {
            let (mut a, mut b) = members(tree).unwrap();
            let before = a.epoch();
            let commit = a.start_update().unwrap();
            let answer = b.apply(&commit).unwrap();
            assert_ne!(before, answer);
            a.finish_update(&answer).unwrap();
            let authenticator =
                |member: &Member| member.group.epoch_authenticator().as_slice().to_vec();
            assert_eq!(authenticator(&a), authenticator(&b));
        }
    }
}
