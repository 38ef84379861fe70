//! Records as a tokio-util codec.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{HEADER_LEN, MAX_CIPHERTEXT, Record, RecordHeader};
use crate::error::{Error, InvalidMessage};

/// Cuts a stream of bytes into [`Record`]s (TL-02), for use with
/// [`Framed`](tokio_util::codec::Framed).
///
/// It checks headers and lengths, and knows no keys: the records of an established channel come
/// out as they are on the wire. Buffers stay small: at most what completes one record is reserved,
/// and that only when the header has been checked (CH-10).
///
/// The error is an [`io::Error`] that holds the [`Error`]; [`Error::from_io`] gives it back. An
/// error means that the connection is dead. `Framed` does not remember that: after an error it
/// ends once, and may then read again. The caller has to.
///
/// The end of the stream between two records is the end, and inside of one
/// [`Error::Truncated`]. Whether a close_notify came before is for the caller to know (CH-04).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordCodec {}

impl RecordCodec {
    /// A codec; it keeps no state.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Decoder for RecordCodec {
    type Item = Record;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Record>, io::Error> {
        let record = Record::split_from(input).map_err(Error::from)?;
        if record.is_none() && input.len() >= HEADER_LEN {
            input.reserve(Record::needed(input));
        }
        Ok(record)
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Record>, io::Error> {
        match self.decode(input)? {
            None if !input.is_empty() => Err(Error::Truncated.into()),
            record => Ok(record),
        }
    }
}

impl Encoder<Record> for RecordCodec {
    type Error = io::Error;

    fn encode(&mut self, record: Record, out: &mut BytesMut) -> Result<(), io::Error> {
        let length = record.payload.len();
        if length > MAX_CIPHERTEXT {
            return Err(Error::from(InvalidMessage::RecordTooLong(length)).into());
        }
        let header = RecordHeader { content_type: record.content_type, length };
        out.reserve(HEADER_LEN + length);
        out.put_slice(&header.encode());
        out.put_slice(&record.payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio_util::codec::{Framed, FramedRead};

    use super::{super::ContentType, *};

    fn record(content_type: ContentType, payload: &[u8]) -> Record {
        Record::new(content_type, BytesMut::from(payload)).unwrap()
    }

    fn encode(records: &[Record]) -> BytesMut {
        let mut out = BytesMut::new();
        for record in records {
            RecordCodec::new().encode(record.clone(), &mut out).unwrap();
        }
        out
    }

    fn error(result: Result<Option<Record>, io::Error>) -> Error {
        Error::from_io(&result.unwrap_err()).unwrap().clone()
    }

    // TL-02
    #[test]
    fn a_record_is_encoded_with_its_header() {
        let out =
            encode(&[record(ContentType::Alert, &[1, 0]), record(ContentType::Handshake, b"")]);
        assert_eq!(out[..], [21, 3, 3, 0, 2, 1, 0, 22, 3, 3, 0, 0]);
    }

    #[test]
    fn a_record_that_grew_too_long_is_not_encoded() {
        let mut long = record(ContentType::ApplicationData, b"");
        long.payload.resize(MAX_CIPHERTEXT + 1, 0);
        let mut out = BytesMut::new();
        let result = RecordCodec::new().encode(long, &mut out).map(|()| None);
        assert_eq!(error(result), InvalidMessage::RecordTooLong(MAX_CIPHERTEXT + 1).into());
        assert!(out.is_empty());
    }

    // CH-10
    #[test]
    fn no_more_is_reserved_than_completes_the_record() {
        let mut input = BytesMut::with_capacity(HEADER_LEN);
        input.extend_from_slice(&[23, 3, 3, 0x40]);
        assert_eq!(RecordCodec::new().decode(&mut input).unwrap(), None);
        assert_eq!(input.capacity(), HEADER_LEN);
        input.extend_from_slice(&[0x11]);
        assert_eq!(RecordCodec::new().decode(&mut input).unwrap(), None);
        let expected = HEADER_LEN + 0x4011;
        assert!((expected..expected + 64).contains(&input.capacity()), "{}", input.capacity());
    }

    // CH-10
    #[test]
    fn nothing_is_reserved_for_a_length_that_is_refused() {
        let mut input = BytesMut::with_capacity(HEADER_LEN);
        input.extend_from_slice(&[23, 3, 3, 0xff, 0xff]);
        let result = RecordCodec::new().decode(&mut input);
        assert_eq!(error(result), InvalidMessage::RecordTooLong(0xffff).into());
        assert_eq!(input.capacity(), HEADER_LEN);
    }

    // CH-04, CH-10
    #[test]
    fn every_end_inside_a_record_is_a_truncation() {
        let whole = encode(&[record(ContentType::Handshake, b"hello")]);
        for end in 1..whole.len() {
            let mut input = BytesMut::from(&whole[..end]);
            assert_eq!(error(RecordCodec::new().decode_eof(&mut input)), Error::Truncated);
        }
        let mut input = whole;
        assert!(RecordCodec::new().decode_eof(&mut input).unwrap().is_some());
        assert!(RecordCodec::new().decode_eof(&mut input).unwrap().is_none());
    }

    #[tokio::test]
    async fn records_pass_through_a_narrow_stream() {
        let (near, far) = tokio::io::duplex(7);
        let sent = [
            record(ContentType::Handshake, &[1; 300]),
            record(ContentType::ApplicationData, &[2; MAX_CIPHERTEXT]),
            record(ContentType::ApplicationData, b""),
            record(ContentType::Alert, &[1, 0]),
        ];
        let mut near = Framed::new(near, RecordCodec::new());
        let send = async {
            for record in sent.clone() {
                near.send(record).await.unwrap();
            }
            near.close().await.unwrap();
        };
        let receive = FramedRead::new(far, RecordCodec::new()).map(Result::unwrap).collect();
        let ((), received): ((), Vec<_>) = tokio::join!(send, receive);
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn a_stream_of_another_protocol_fails_before_its_first_five_bytes() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b"GET").await.unwrap();
        // `near` stays open: the answer must not wait for more.
        let mut far = FramedRead::new(far, RecordCodec::new());
        let result = far.next().await.unwrap().map(Some);
        assert_eq!(error(result), InvalidMessage::UnknownContentType(b'G').into());
        drop(near);
    }

    #[tokio::test]
    async fn a_stream_cut_inside_a_record_ends_with_truncated() {
        let bytes =
            encode(&[record(ContentType::Alert, &[1, 0]), record(ContentType::Handshake, b"cut")]);
        let mut framed = FramedRead::new(&bytes[..bytes.len() - 1], RecordCodec::new());
        assert!(framed.next().await.unwrap().is_ok());
        let result = framed.next().await.unwrap();
        assert_eq!(result.as_ref().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error(result.map(Some)), Error::Truncated);
        assert!(framed.next().await.is_none());
    }

    proptest! {
        #[test]
        fn records_round_trip(
            payloads in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..500),
                0..8,
            ),
        ) {
            let records: Vec<_> = payloads
                .iter()
                .map(|payload| record(ContentType::ApplicationData, payload))
                .collect();
            let mut input = encode(&records);
            let mut decoded = Vec::new();
            while let Some(record) = RecordCodec::new().decode_eof(&mut input).unwrap() {
                decoded.push(record);
            }
            prop_assert_eq!(decoded, records);
        }
    }
}
