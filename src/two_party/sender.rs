//! The sending direction of an established connection, and the group.
//!
//! Whatever happens to the group ends in something to send, so the group lives here.

mod rotation;

use std::{sync::Arc, time::Instant};

use zeroize::Zeroizing;

#[cfg(feature = "tokio")]
pub(crate) use self::rotation::Outcome;
use self::rotation::Rotation;
use super::{
    established::to_usize,
    receiver::{Control, KeyChange},
    rekey::{OnUpdate, OwnUpdates, UpdateFlood, on_update},
    session::{Applied, Session},
    shared::Shared,
};
use crate::{
    auth::{AuthenticationError, Role},
    config::Config,
    error::{ApiMisuse, CryptoError, Error, PeerMisbehaved},
    group::{EpochSecrets, Group},
    key_log::KeyLog,
    record::{Output, RecordKey, SendPath},
    time::Time,
    wire::{Alert, AlertDescription, ContentType, ENVELOPE_LEN, MAX_PLAINTEXT, TwoPartyMessage},
};

/// Labels of MLS exporters that an application cannot use: they are the channel's own.
const RESERVED_LABELS: &str = "MLS-TLS ";

/// Seals records, and does everything that concerns the group.
pub(crate) struct Sender {
    path: SendPath,
    /// Boxed, because streams are moved, and futures with streams in them.
    session: Box<Session>,
    updates: OwnUpdates,
    rotation: Option<Rotation>,
    flood: UpdateFlood,
    /// Why the peer was refused a change of its identity, until somebody asks.
    refused: Option<AuthenticationError>,
    /// When the authentication service is asked about the peer again.
    revisit: Option<Instant>,
    closed: bool,
    peer_closed: bool,
    failed: Option<Error>,
    config: Arc<Config>,
    shared: Arc<Shared>,
}

impl Sender {
    pub(crate) fn new(
        path: SendPath,
        session: Session,
        config: Arc<Config>,
        shared: Arc<Shared>,
        now: Instant,
    ) -> Self {
        let updates = OwnUpdates::new(config.rekey, now);
        updates.set_attention(&shared.counters);
        Self {
            path,
            session: Box::new(session),
            updates,
            rotation: None,
            flood: UpdateFlood::new(config.limits),
            refused: None,
            revisit: config.revisit_interval.and_then(|interval| now.checked_add(interval)),
            closed: false,
            peer_closed: false,
            failed: None,
            config,
            shared,
        }
    }

    /// Seals application data. Call [`Sender::poll_update`] afterwards.
    pub(crate) fn write(&mut self, data: &[u8], out: &mut dyn Output) -> Result<(), Error> {
        self.check_open()?;
        for chunk in data.chunks(MAX_PLAINTEXT) {
            if let Err(error) = self.path.seal_data(chunk, out) {
                return Err(self.fail(error, out));
            }
            let counters = &self.shared.counters;
            counters.bytes_sent.add(chunk.len() as u64);
            counters.records_sent.add(1);
        }
        Ok(())
    }

    /// Sends an empty record, which shows the peer that this party has the keys.
    pub(crate) fn confirm(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        self.path.seal_empty(out)
    }

    /// The peer has shown that it has the keys: the session goes on from here.
    pub(crate) fn confirmed(&mut self) -> Result<(), Error> {
        if self.session.outbox().is_some() {
            self.session.merge_update()?;
        }
        self.session.persist()
    }

    /// Starts an update if one is wanted, by a caller or by policy, and none is outstanding (2P-07).
    pub(crate) fn poll_update(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        self.check_failed()?;
        if self.closed && self.peer_closed {
            return Ok(());
        }
        // A party that has closed protects nothing any more that its policy is for.
        if !self.closed {
            self.updates.apply_policy(&self.shared.counters, self.path.is_worn());
        }
        if self.updates.is_due()
            && let Err(error) = self.start_update(out)
        {
            return Err(self.fail(error, out));
        }
        self.updates.set_attention(&self.shared.counters);
        Ok(())
    }

    fn start_update(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        let next = self.rotation.as_ref().map(|rotation| &rotation.identity);
        let commit = self.session.start_update(&[], next)?.to_vec();
        let epoch =
            self.session.group.pending_epoch().ok_or(CryptoError::Internal("the update"))?;
        self.session.persist()?;
        self.send_message(&TwoPartyMessage::ConnectionUpdate { commit }, out)?;
        self.updates.start(epoch, &self.shared.counters);
        Ok(())
    }

    /// Asks for an update. It is complete when `own_updates` reaches the number.
    pub(crate) fn request_update(&mut self) -> Result<u64, Error> {
        self.check_failed()?;
        if self.closed && self.peer_closed {
            return Err(ApiMisuse::Closed.into());
        }
        Ok(self.updates.request())
    }

    /// Deals with what the receiving direction found.
    pub(crate) fn handle(
        &mut self,
        control: Control,
        now: Time,
        out: &mut dyn Output,
    ) -> Result<Option<KeyChange>, Error> {
        self.check_failed()?;
        let result = match control {
            Control::Update(commit) => self.handle_update(&commit, now, out),
            Control::EpochKeyUpdate(epoch) => self.handle_epoch_key_update(epoch, now, out),
            Control::UpdateRefused(epoch) => self.handle_update_refused(epoch).map(|()| None),
            Control::PeerClosed => {
                self.peer_closed = true;
                Ok(None)
            }
            Control::Attention => Ok(None),
            Control::Timeout(passed) => {
                // The timer may be that of the peer's credential.
                if !self.closed {
                    self.updates.handle_timeout(passed, &self.shared.counters);
                }
                self.handle_revisit(passed, now).map(|()| None)
            }
            Control::Failure(error) => Err(error),
        };
        let change = result.map_err(|error| self.fail(error, out))?;
        self.poll_update(out)?;
        Ok(change)
    }

    fn handle_update(
        &mut self,
        commit: &[u8],
        now: Time,
        out: &mut dyn Output,
    ) -> Result<Option<KeyChange>, Error> {
        self.flood.count(now.monotonic, &self.shared.counters)?;
        match on_update(self.session.facts.initial_role, self.updates.waiting().is_some()) {
            OnUpdate::Ignore => {
                self.shared.counters.crossed_updates.add(1);
                self.updates.ignore()?;
                return Ok(None);
            }
            OnUpdate::DropOwnThenApply => {
                self.shared.counters.crossed_updates.add(1);
                self.updates.restart();
                self.session.drop_update()?;
            }
            OnUpdate::Apply => {}
        }
        match self.session.try_update(commit, &self.config, now)? {
            Applied::Refused(reason) => return self.refuse_update(reason, out).map(|()| None),
            Applied::Rotation => self.shared.counters.peer_rotations.add(1),
            Applied::Update => {}
        }
        self.session.persist()?;
        self.shared.set_peer(&self.session.facts.peer);
        let secrets = self.session.group.traffic_secrets()?;
        // The answer is the last record of the old epoch (2P-11).
        let answer = TwoPartyMessage::EpochKeyUpdate { epoch: secrets.epoch };
        self.send_message(&answer, out)?;
        self.shared.counters.peer_updates.add(1);
        let epoch = secrets.epoch;
        let receive = self.switch(secrets)?;
        Ok(Some(KeyChange::Expect(receive, epoch)))
    }

    fn handle_epoch_key_update(
        &mut self,
        epoch: u64,
        now: Time,
        out: &mut dyn Output,
    ) -> Result<Option<KeyChange>, Error> {
        let Some(expected) = self.updates.waiting() else {
            return Err(PeerMisbehaved::UnsolicitedEpochKeyUpdate.into());
        };
        if epoch != expected {
            return Err(PeerMisbehaved::WrongEpoch { expected, got: epoch }.into());
        }
        let rotated = self.session.group.is_rotating();
        self.session.merge_update()?;
        self.session.persist()?;
        let secrets = self.session.group.traffic_secrets()?;
        // The last record of the old epoch in this direction, too: the peer learns that none is
        // missing, and that it can erase the old key.
        self.send_message(&TwoPartyMessage::EpochKeyUpdate { epoch }, out)?;
        let receive = self.switch(secrets)?;
        self.updates.complete(now.monotonic);
        self.shared.counters.own_updates.set(self.updates.completed());
        if rotated {
            self.finish_rotation(true);
        }
        Ok(Some(KeyChange::Switch(receive)))
    }

    /// Sends under the new epoch from now on, and gives the key to receive with.
    fn switch(&mut self, secrets: EpochSecrets) -> Result<RecordKey, Error> {
        let epoch = secrets.epoch;
        let (role, key_log) = (self.shared.info.role, self.config.key_log.as_deref());
        let (send, receive) = record_keys(key_log, &self.session.group, role, secrets)?;
        self.path.switch(send);
        self.shared.counters.epoch.set(epoch);
        Ok(receive)
    }

    fn send_message(
        &mut self,
        message: &TwoPartyMessage,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        const TOO_LONG: CryptoError =
            CryptoError::Unsupported("updates as small as the peer wants them");
        let encoded = message.encode().map_err(|_| TOO_LONG)?;
        let limit = to_usize(self.session.facts.peer_max_message_size);
        if encoded.len() > limit.saturating_add(ENVELOPE_LEN) {
            return Err(TOO_LONG.into());
        }
        self.path.seal_control(ContentType::Handshake, &encoded, out)
    }

    /// Time has passed: the policy may want an update, and the peer be revisited.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut dyn Output) -> Result<(), Error> {
        self.handle(Control::Timeout(now.monotonic), now, out).map(|_| ())
    }

    /// Ends this direction with a close_notify. The other direction, and updates, go on (CH-04).
    pub(crate) fn close(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        self.check_failed()?;
        if !self.closed {
            self.closed = true;
            self.send_alert(AlertDescription::CloseNotify, out)?;
        }
        Ok(())
    }

    /// Ends the connection: tells the peer, and remembers why.
    pub(crate) fn fail(&mut self, error: Error, out: &mut dyn Output) -> Error {
        if self.failed.is_none() {
            self.failed = Some(error.clone());
            if let Some(description) = error.alert() {
                // Nothing is left to be done about a connection that cannot even say goodbye.
                let _ = self.send_alert(description, out);
            }
        }
        error
    }

    fn send_alert(
        &mut self,
        description: AlertDescription,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        self.path.seal_control(ContentType::Alert, &Alert::new(description).encode(), out)
    }

    /// Exports a secret from the current epoch for the application (CH-07).
    pub(crate) fn export_secret(
        &self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let longest = 255 * self.session.group.suite().hash_len();
        if label.starts_with(RESERVED_LABELS) || length == 0 || length > longest {
            return Err(ApiMisuse::Exporter.into());
        }
        self.session.group.export(label, context, length)
    }

    /// When to call [`Sender::handle_timeout`].
    pub(crate) fn timeout(&self) -> Option<Instant> {
        if self.failed.is_some() || (self.closed && self.peer_closed) {
            return None;
        }
        let update = self.updates.deadline().filter(|_| !self.closed);
        update.into_iter().chain(self.revisit).min()
    }

    /// An update is outstanding.
    pub(crate) fn is_waiting(&self) -> bool {
        self.updates.waiting().is_some()
    }

    /// This side has closed, but its last update is not answered yet.
    pub(crate) fn is_lingering(&self) -> bool {
        self.closed && self.failed.is_none() && self.is_waiting()
    }

    /// This side has sent its close_notify.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Application data can be written.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.check_failed()?;
        if self.closed { Err(ApiMisuse::Closed.into()) } else { Ok(()) }
    }

    /// The error that ended the connection, if one did.
    pub(crate) fn check_failed(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    #[cfg(test)]
    pub(crate) fn group(&self) -> &Group {
        &self.session.group
    }

    pub(crate) fn group_mut(&mut self) -> &mut Group {
        &mut self.session.group
    }

    #[cfg(test)]
    pub(crate) fn path_mut(&mut self) -> &mut SendPath {
        &mut self.path
    }
}

/// The keys of an epoch: to send with, and to receive with (TL-01). The client is the initiator of
/// this connection.
pub(crate) fn record_keys(
    key_log: Option<&dyn KeyLog>,
    group: &Group,
    role: Role,
    secrets: EpochSecrets,
) -> Result<(RecordKey, RecordKey), Error> {
    if let Some(log) = key_log {
        let session = group.client_hello_hash()?;
        for (party, secret) in [("CLIENT", &secrets.client), ("SERVER", &secrets.server)] {
            let label = format!("MLS_TLS_{party}_TRAFFIC_SECRET_{}", secrets.epoch);
            log.log(&label, &session, secret.expose());
        }
    }
    let derive = |secret| RecordKey::derive(group.crypto(), group.suite(), secret);
    let (client, server) = (derive(secrets.client)?, derive(secrets.server)?);
    Ok(match role {
        Role::Initiator => (client, server),
        Role::Responder => (server, client),
    })
}
