//! The least that a rekey can cost: the cryptography that RFC 9420 asks of the two members of a group
//! for one commit with an update path, as calls of aws-lc-rs, without anything around it.
//!
//! Left out is what only the framing of a channel needs, the records. Keys are used as they lie in
//! memory; the messages have the lengths of real ones, but no meaning.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    digest,
    error::Unspecified,
    hkdf, hmac, rand,
    signature::{self, Ed25519KeyPair, KeyPair},
};

use crate::support::Result;

/// KDF.Nh of the suite, in bytes.
const HASH_LEN: usize = 32;
/// Of the FramedContentTBS of a commit, of its ciphertext, and of what the transcript takes in.
const COMMIT_LEN: usize = 512;
/// Of a LeafNodeTBS, and of a leaf in the tree hash.
const LEAF_LEN: usize = 256;

/// KDFLabel and the like: a label and a short context.
const INFO: &[u8] = &[0x5a; 40];
/// A KDFLabel with a GroupContext.
const LONG_INFO: &[u8] = &[0x5a; 192];

/// Two members, as far as their keys go.
pub(crate) struct Members {
    signer: Ed25519KeyPair,
    /// The encryption key of the leaf that does not update.
    leaf: PrivateKey,
    leaf_public: agreement::PublicKey,
}

/// What the updater sends.
struct Commit {
    leaf: Signed,
    content: Signed,
    /// HPKE's encapsulated key, and the encrypted path secret.
    enc: agreement::PublicKey,
    path_secret: Vec<u8>,
    confirmation_tag: hmac::Tag,
    /// Of a PrivateMessage.
    sender_data: Vec<u8>,
    ciphertext: Vec<u8>,
}

struct Signed {
    message: Vec<u8>,
    signature: signature::Signature,
}

/// The key of a record layer.
pub(crate) struct RecordKey(LessSafeKey);

impl RecordKey {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[0x5a; 16])?)))
    }

    /// Seals a record where it lies, and opens it again. The tag has the last 16 bytes.
    pub(crate) fn seal_and_open(&self, record: &mut [u8]) -> Result<()> {
        let nonce = || Nonce::assume_unique_for_key([0x5a; 12]);
        let aad = || Aad::from([23, 3, 3, 64, 17]);
        let (content, end) = record.split_last_chunk_mut::<16>().ok_or("a record without a tag")?;
        let tag = self.0.seal_in_place_separate_tag(nonce(), aad(), content)?;
        end.copy_from_slice(tag.as_ref());
        self.0.open_in_place(nonce(), aad(), record)?;
        Ok(())
    }
}

impl Members {
    pub(crate) fn new() -> Result<Self> {
        let leaf = PrivateKey::generate(&X25519)?;
        let leaf_public = leaf.compute_public_key()?;
        Ok(Self { signer: Ed25519KeyPair::generate()?, leaf, leaf_public })
    }

    /// One rekey of one member: what both compute.
    pub(crate) fn rekey(&self) -> Result<()> {
        let commit = self.update()?;
        self.apply(commit)
    }

    fn update(&self) -> Result<Commit> {
        // UpdatePath: a leaf, and a path secret for the root.
        let leaf_key = derive_key_pair(&random()?)?;
        let path_secret = random()?;
        let root_key = node_key(&path_secret)?;
        hash_tree();
        let leaf = self.sign(LEAF_LEN)?;
        let commit_secret = expand(&path_secret, INFO)?;

        // The path secret for the other leaf, by HPKE.
        let ephemeral = PrivateKey::generate(&X25519)?;
        let enc = ephemeral.compute_public_key()?;
        let shared_secret = agree(&ephemeral, self.leaf_public.as_ref())?;
        let (key, nonce) = hpke_key_schedule(&shared_secret)?;
        let encrypted_path_secret = seal(&key, nonce, path_secret.to_vec())?;

        let content = self.sign(COMMIT_LEN)?;
        let confirmation_tag = hmac::sign(&hmac_key(&next_epoch(&commit_secret)?), INFO);

        // PrivateMessage.
        let (key, nonce) = message_key()?;
        let ciphertext = seal(&key, nonce, vec![0; COMMIT_LEN])?;
        let (key, nonce) = sender_data_key(&ciphertext)?;
        let sender_data = seal(&key, nonce, vec![0; 12])?;
        std::hint::black_box((leaf_key, root_key));
        Ok(Commit {
            leaf,
            content,
            enc,
            path_secret: encrypted_path_secret,
            confirmation_tag,
            sender_data,
            ciphertext,
        })
    }

    fn apply(&self, commit: Commit) -> Result<()> {
        let (key, nonce) = sender_data_key(&commit.ciphertext)?;
        open(&key, nonce, commit.sender_data)?;
        let (key, nonce) = message_key()?;
        open(&key, nonce, commit.ciphertext)?;
        self.verify(&commit.content)?;
        self.verify(&commit.leaf)?;
        hash_tree();

        let shared_secret = agree(&self.leaf, commit.enc.as_ref())?;
        let (key, nonce) = hpke_key_schedule(&shared_secret)?;
        let path_secret = open(&key, nonce, commit.path_secret)?;
        std::hint::black_box(node_key(&path_secret)?);
        let commit_secret = expand(&path_secret, INFO)?;
        let confirmation_key = hmac_key(&next_epoch(&commit_secret)?);
        Ok(hmac::verify(&confirmation_key, INFO, commit.confirmation_tag.as_ref())?)
    }

    fn sign(&self, length: usize) -> Result<Signed> {
        let message = vec![0x5a; length];
        let signature = self.signer.try_sign(&message)?;
        Ok(Signed { message, signature })
    }

    fn verify(&self, Signed { message, signature }: &Signed) -> Result<()> {
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, self.signer.public_key());
        Ok(key.verify(message, signature.as_ref())?)
    }
}

/// The parent hash, and the tree hashes of what changes: a leaf and the root.
fn hash_tree() {
    for _ in 0..3 {
        hash(LEAF_LEN);
    }
}

/// The key schedule of the next epoch (RFC 9420, section 8), up to the exported traffic secrets.
/// Gives the confirmation key.
fn next_epoch(commit_secret: &[u8]) -> Result<[u8; HASH_LEN]> {
    // The confirmed and the interim transcript hash.
    hash(COMMIT_LEN);
    hash(2 * HASH_LEN);
    let joiner_secret = expand(&extract(&[0; HASH_LEN], commit_secret), LONG_INFO)?;
    let epoch_secret = expand(&extract(&joiner_secret, &[0; HASH_LEN]), LONG_INFO)?;
    let mut secret = epoch_secret;
    // Those of section 8, table 4.
    for _ in 0..9 {
        secret = std::hint::black_box(expand(&epoch_secret, INFO)?);
    }
    // MLS-Exporter, for each direction.
    for _ in 0..2 {
        hash(0);
        std::hint::black_box(expand(&expand(&secret, INFO)?, INFO)?);
    }
    Ok(secret)
}

/// The secret tree of two leaves, down to one key of a handshake message (RFC 9420, section 9).
fn message_key() -> Result<([u8; HASH_LEN], [u8; HASH_LEN])> {
    let encryption_secret = [0x5a; HASH_LEN];
    let left = expand(&encryption_secret, INFO)?;
    std::hint::black_box(expand(&encryption_secret, INFO)?);
    let handshake = expand(&left, INFO)?;
    std::hint::black_box(expand(&left, INFO)?);
    std::hint::black_box(expand(&handshake, INFO)?);
    Ok((expand(&handshake, INFO)?, expand(&handshake, INFO)?))
}

/// RFC 9420, section 6.3.2.
fn sender_data_key(ciphertext: &[u8]) -> Result<([u8; HASH_LEN], [u8; HASH_LEN])> {
    let secret = [0x5a; HASH_LEN];
    let sample = &ciphertext[..HASH_LEN];
    Ok((expand(&secret, sample)?, expand(&secret, sample)?))
}

/// The key pair of a node from its path secret.
fn node_key(path_secret: &[u8]) -> Result<PrivateKey> {
    derive_key_pair(&expand(path_secret, INFO)?)
}

/// DeriveKeyPair (RFC 9180, section 7.1.3).
fn derive_key_pair(ikm: &[u8]) -> Result<PrivateKey> {
    let secret = expand(&extract(&[], ikm), INFO)?;
    let key = PrivateKey::from_private_key(&X25519, &secret)?;
    std::hint::black_box(key.compute_public_key()?);
    Ok(key)
}

/// The shared secret of a KEM (RFC 9180, section 4.1).
fn agree(key: &PrivateKey, public: &[u8]) -> Result<[u8; HASH_LEN]> {
    let public = UnparsedPublicKey::new(&X25519, public);
    let dh = |secret: &[u8]| Ok(extract(&[], secret));
    let prk = agreement::agree(key, public, Unspecified, dh)?;
    expand(&prk, INFO)
}

/// KeySchedule in base mode (RFC 9180, section 5.1).
fn hpke_key_schedule(shared_secret: &[u8]) -> Result<([u8; HASH_LEN], [u8; HASH_LEN])> {
    std::hint::black_box((extract(&[], INFO), extract(&[], LONG_INFO)));
    let secret = extract(shared_secret, INFO);
    let keys = (expand(&secret, INFO)?, expand(&secret, INFO)?);
    std::hint::black_box(expand(&secret, INFO)?);
    Ok(keys)
}

fn random() -> Result<[u8; HASH_LEN]> {
    let mut bytes = [0; HASH_LEN];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

fn hash(length: usize) {
    let data = [0x5a; COMMIT_LEN];
    std::hint::black_box(digest::digest(&digest::SHA256, &data[..length]));
}

fn hmac_key(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

fn extract(salt: &[u8], ikm: &[u8]) -> [u8; HASH_LEN] {
    let mut prk = [0; HASH_LEN];
    prk.copy_from_slice(hmac::sign(&hmac_key(salt), ikm).as_ref());
    prk
}

fn expand(prk: &[u8], info: &[u8]) -> Result<[u8; HASH_LEN]> {
    let mut okm = [0; HASH_LEN];
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk)
        .expand(&[info], hkdf::HKDF_SHA256)?
        .fill(&mut okm)?;
    Ok(okm)
}

/// AEAD key and nonce are the beginnings of what was derived for them.
fn aead(key: &[u8; HASH_LEN], nonce: [u8; HASH_LEN]) -> Result<(LessSafeKey, Nonce)> {
    let key = UnboundKey::new(&AES_128_GCM, &key[..AES_128_GCM.key_len()])?;
    let nonce = Nonce::try_assume_unique_for_key(&nonce[..AES_128_GCM.nonce_len()])?;
    Ok((LessSafeKey::new(key), nonce))
}

fn seal(key: &[u8; HASH_LEN], nonce: [u8; HASH_LEN], mut data: Vec<u8>) -> Result<Vec<u8>> {
    let (key, nonce) = aead(key, nonce)?;
    key.seal_in_place_append_tag(nonce, Aad::from(INFO), &mut data)?;
    Ok(data)
}

fn open(key: &[u8; HASH_LEN], nonce: [u8; HASH_LEN], mut data: Vec<u8>) -> Result<Vec<u8>> {
    let (key, nonce) = aead(key, nonce)?;
    let length = key.open_in_place(nonce, Aad::from(INFO), &mut data)?.len();
    data.truncate(length);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_member_opens_and_verifies() {
        let members = Members::new().unwrap();
        members.rekey().unwrap();
        let commit = members.update().unwrap();
        assert!(Members::new().unwrap().apply(commit).is_err());
    }
}
