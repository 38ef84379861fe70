//! mls-rs, with AWS-LC: a group of two in memory.

mod provider;

use mls_rs::{
    CipherSuiteProvider, Client, CryptoProvider, ExtensionList, Group, MlsMessage,
    client_builder::{MlsConfig, PaddingMode},
    group::{CommitEffect, ReceivedMessage},
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
};

use self::provider::{AwsLc, SUITE};
use crate::support::Result;

/// Two members of one group.
pub(crate) struct Pair<C: MlsConfig> {
    updater: Group<C>,
    answerer: Group<C>,
}

/// The members, in the first epoch of both.
pub(crate) fn pair() -> Result<Pair<impl MlsConfig>> {
    let (alice, bob) = (client("server")?, client("client")?);
    let key_package =
        bob.generate_key_package_message(ExtensionList::default(), ExtensionList::default(), None)?;
    let mut answerer =
        alice.create_group(ExtensionList::default(), ExtensionList::default(), None)?;
    let commit = answerer.commit_builder().add_member(key_package)?.build()?;
    answerer.apply_pending_commit()?;
    let welcome = commit.welcome_messages.first().ok_or("no Welcome was made")?;
    let (updater, _) = bob.join_group(commit.ratchet_tree, welcome, None)?;
    Ok(Pair { updater, answerer })
}

impl<C: MlsConfig> Pair<C> {
    /// Renews the keys of one member, with the bytes of the commit between them, as ours does it: the
    /// updater applies its commit when the other one has.
    pub(crate) fn rekey(&mut self) -> Result<()> {
        let commit = self.updater.commit(Vec::new())?.commit_message.to_bytes()?;
        let received = self.answerer.process_incoming_message(MlsMessage::from_bytes(&commit)?)?;
        let ReceivedMessage::Commit(received) = received else {
            return Err("not a commit".into());
        };
        if !matches!(received.effect, CommitEffect::NewEpoch(_)) {
            return Err("the commit did not lead to a new epoch".into());
        }
        self.updater.apply_pending_commit()?;
        if self.updater.current_epoch() != self.answerer.current_epoch() {
            return Err("the members are in different epochs".into());
        }
        Ok(())
    }
}

/// What it sends is what ours sends: commits as PrivateMessages without padding. It signs a GroupInfo
/// with each of them, which cannot be turned off; the ratchet tree in it can.
fn client(name: &str) -> Result<Client<impl MlsConfig>> {
    let provider = AwsLc::default();
    let suite = provider.cipher_suite_provider(SUITE).ok_or("no such suite")?;
    let (secret, public) = suite.signature_key_generate()?;
    let credential = BasicCredential::new(name.into()).into_credential();
    let mut encryption = EncryptionOptions::default();
    encryption.encrypt_control_messages = true;
    encryption.padding_mode = PaddingMode::None;
    let commits = CommitOptions::new().with_path_required(true).with_ratchet_tree_extension(false);
    let rules =
        DefaultMlsRules::new().with_commit_options(commits).with_encryption_options(encryption);
    Ok(Client::builder()
        .identity_provider(BasicIdentityProvider::new())
        .crypto_provider(provider)
        .mls_rules(rules)
        .signing_identity(SigningIdentity::new(credential, public), secret, SUITE)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_reach_the_same_epoch() {
        let mut pair = pair().unwrap();
        let secret = |group: &Group<_>| group.epoch_authenticator().unwrap().as_bytes().to_vec();
        let before = secret(&pair.updater);
        pair.rekey().unwrap();
        assert_ne!(before, secret(&pair.updater));
        assert_eq!(secret(&pair.updater), secret(&pair.answerer));
    }
}
