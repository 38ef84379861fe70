//! What either half tells about the stream.

use std::future::poll_fn;

use zeroize::Zeroizing;

use super::{super::wake::Side, IntoSplit, OwnedReadHalf, OwnedWriteHalf};
use crate::{
    auth::{PeerIdentity, Role},
    crypto::CipherSuite,
    error::Error,
    name::ServerName,
    store::SessionId,
    two_party::{HandshakeKind, Statistics},
};

/// The same for both halves. `$side` is as whom they have the sending half.
macro_rules! facts {
    ($half:ident, $side:expr) => {
        impl<IO: IntoSplit> $half<IO> {
            /// Whether this party connected or accepted.
            pub fn role(&self) -> Role {
                self.inner.shared.info.role
            }

            /// The cipher suite.
            pub fn cipher_suite(&self) -> CipherSuite {
                self.inner.shared.info.suite
            }

            /// The application protocol that was selected, if any.
            pub fn alpn_protocol(&self) -> Option<&[u8]> {
                self.inner.shared.info.alpn.as_deref()
            }

            /// The name of the service that the initiator asked for.
            pub fn server_name(&self) -> Option<&ServerName> {
                self.inner.shared.info.server_name.as_ref()
            }

            /// As [`MlsStream::channel_binding`](crate::MlsStream::channel_binding).
            pub fn channel_binding(&self) -> [u8; 32] {
                self.inner.shared.info.channel_binding
            }

            /// How the connection began.
            pub fn handshake_kind(&self) -> HandshakeKind {
                self.inner.shared.info.kind
            }

            /// As [`MlsStream::session_id`](crate::MlsStream::session_id).
            pub fn session_id(&self) -> Option<&SessionId> {
                self.inner.shared.info.session_id.as_ref()
            }

            /// As [`MlsStream::export_secret`](crate::MlsStream::export_secret); waits while the
            /// other half is at work.
            ///
            /// # Errors
            ///
            /// As [`MlsStream::export_secret`](crate::MlsStream::export_secret).
            pub async fn export_secret(
                &mut self,
                label: &str,
                context: &[u8],
                length: usize,
            ) -> Result<Zeroizing<Vec<u8>>, Error> {
                let guard = poll_fn(|cx| self.inner.write.poll_take($side, cx)).await;
                guard.1.sender.export_secret(label, context, length)
            }

            /// Who the peer is.
            pub fn peer(&self) -> PeerIdentity {
                self.inner.shared.peer()
            }

            /// The epoch of the group.
            pub fn epoch(&self) -> u64 {
                self.inner.shared.counters.epoch.value()
            }

            /// Counters since the handshake.
            pub fn statistics(&self) -> Statistics {
                self.inner.shared.statistics()
            }
        }
    };
}

facts!(OwnedReadHalf, Side::Helper);
facts!(OwnedWriteHalf, Side::Owner);
