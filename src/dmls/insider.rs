//! A member that has genuine keys and keeps no rules, for the fuzzer.

use bytes::Bytes;

use super::DmlsSession;
use crate::{
    error::Error,
    group::send::{CommitPlan, Psk},
    wire::{CommitFrame, DmlsMessageType, EpochRef, Frame, Opaque, encode_frame_part},
};

impl DmlsSession {
    /// A frame in the next place, or in a later one, with whatever is in it.
    pub(crate) fn forge(
        &mut self,
        message_type: DmlsMessageType,
        skipped: u64,
        data: &[u8],
    ) -> Result<Bytes, Error> {
        self.skip(skipped);
        let message = self.seal(message_type, data, Vec::new())?;
        self.finish(message_type, &message)
    }

    /// A commit that says in its header that it imports `imports`, with keys for some of them.
    pub(crate) fn forge_commit(
        &mut self,
        imports: Vec<EpochRef>,
        keys: &[Vec<u8>],
        proposals: Vec<Vec<u8>>,
    ) -> Result<Bytes, Error> {
        let header = self.next_header(DmlsMessageType::Commit, imports, Vec::new())?;
        let psks = keys.iter().map(|id| Psk { id, secret: &[1; 32] }).collect();
        let plan =
            CommitPlan { psks, update: true, authenticated_data: header, ..CommitPlan::default() };
        let own = self.own.as_mut().ok_or(crate::error::ApiMisuse::Closed)?;
        let (commit, _) = own.commit(plan)?;
        let signature = Opaque(own.sign_commit(&proposals, &commit)?);
        let proposals = proposals.into_iter().map(Opaque).collect();
        let body = CommitFrame { proposals, commit: Opaque(commit), signature };
        self.finish(DmlsMessageType::Commit, &encode_frame_part(&body)?)
    }

    fn skip(&mut self, places: u64) {
        for _ in 0..places {
            self.outbox.push(&Bytes::new(), false, 0);
        }
    }

    fn finish(&mut self, message_type: DmlsMessageType, body: &[u8]) -> Result<Bytes, Error> {
        let frame = Frame::new(message_type, body)?.encoded().clone();
        self.outbox.push(&frame, false, self.policy.max_kept_bytes);
        Ok(frame)
    }
}
