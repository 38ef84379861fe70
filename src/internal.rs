//! What the benches of this project measure and no user needs. No part of the public API: it changes
//! without notice.

use crate::{
    error::{ApiMisuse, CryptoError, Error},
    group::{Group, StagedUpdate},
    two_party::Connection,
};

/// The MLS work of both ends for one update of `updater`: commit, verification, both merges and the
/// traffic secrets of the new epoch. No messages of the channel and no records.
///
/// The channels do not take part: they cannot be used afterwards.
///
/// # Errors
///
/// [`ApiMisuse::HandshakeNotComplete`] during a handshake, and what the group gives.
pub fn update_groups(updater: &mut Connection, peer: &mut Connection) -> Result<(), Error> {
    let updater = updater.group_mut().ok_or(ApiMisuse::HandshakeNotComplete)?;
    let peer = peer.group_mut().ok_or(ApiMisuse::HandshakeNotComplete)?;
    let commit = updater.start_update_saying(&[], None)?;
    let StagedUpdate::SameCredential(update) = peer.receive_update(&commit)? else {
        return Err(CryptoError::Internal("an update of the keys alone").into());
    };
    peer.apply(update)?;
    updater.merge_update()?;
    let [sent, received] = [updater, peer].map(|group: &mut Group| group.traffic_secrets());
    if sent?.epoch == received?.epoch {
        Ok(())
    } else {
        Err(CryptoError::Internal("updating two groups").into())
    }
}
