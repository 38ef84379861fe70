//! Believing anyone.

use crate::auth::{
    AuthenticationError, AuthenticationRequest, AuthenticationService, PeerIdentity,
};

/// Believes every peer to be who it says it is. For tests and experiments only.
///
/// This gives up authentication. Whoever can reach the other end of the stream can take any name,
/// and an active attacker on the way can sit in the middle: it holds one channel with each side,
/// reads everything and changes what it likes, and neither side notices. What remains is a channel
/// that is safe from those who only listen.
///
/// The server name that the initiator asked for is not compared with anything either. The name of
/// a peer must still be one that an [`Identity`](crate::Identity) can have, and the credential a basic
/// one: nobody's name is read from certificates that nobody verifies.
///
/// ```
/// use mls_channel::{Config, Identity, danger::AcceptAnyone};
///
/// let config = Config::builder()
///     .identity(Identity::generate("test")?)
///     .authentication_service(AcceptAnyone)
///     .build()?;
/// # Ok::<(), mls_channel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs)] // there is nothing to configure
pub struct AcceptAnyone;

impl AuthenticationService for AcceptAnyone {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        Ok(PeerIdentity::new(request.presented.to_name()?, request.presented.to_public_key()?))
    }

    fn trust_digest(&self) -> Option<[u8; 32]> {
        Some(*b"mls-channel danger AcceptAnyone ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        auth::{PresentedIdentity, Purpose, Role, validate},
        identity::PublicKey,
        name::ServerName,
    };

    fn ask(name: &[u8], key: &[u8]) -> Result<PeerIdentity, AuthenticationError> {
        let server_name = ServerName::new("server").ok();
        let request = AuthenticationRequest::new(
            PresentedIdentity::new(name, key),
            Role::Responder,
            server_name.as_ref(),
            Purpose::Handshake,
            SystemTime::UNIX_EPOCH,
        );
        validate(&AcceptAnyone, &request).map(|proof| proof.into_peer())
    }

    // CH-08
    #[test]
    fn anyone_is_believed() {
        let key = PublicKey::from_bytes(&[1; 32]).unwrap();
        assert_eq!(ask(b"mallory", &[1; 32]), Ok(PeerIdentity::new("mallory", key)));
    }

    #[test]
    fn impossible_name_or_key_is_not_believed() {
        let malformed = Err(AuthenticationError::MalformedCredential);
        for name in [&b""[..], b"\xc3\x28", b"two words", b"bell\x07", &[b'a'; 256]] {
            assert_eq!(ask(name, &[1; 32]), malformed, "{name:?}");
        }
        assert_eq!(ask(b"mallory", &[1; 31]), malformed);
    }
}
