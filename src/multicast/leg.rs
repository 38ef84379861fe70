//! One end of a leg, without IO: what comes in, in which order it may come, and how much of it.

use bytes::{Bytes, BytesMut};

use crate::{
    error::{Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
    wire::{
        ContentType, ENVELOPE_LEN, HEADER_LEN, LEG_FRAME_OVERHEAD, LEG_VERSION, LegFrame, LegHello,
        LegMessage, LegMessageType, MAX_HELLO_LEN, MAX_PLAINTEXT, MessageAssembler, Record,
    },
};

/// Members of a universe at most.
const MAX_MEMBERS: usize = 1024;

/// The receiving side of a leg.
///
/// ```text
///   Start ── hello, no universe ──► Gathering ── hello ──► Open ── goodbye ──► Closed
///     └───────────── hello with a universe, or of a relay ──►┘
/// ```
///
/// Frames, pings and pongs come in Gathering and in Open. An error is the end of the leg.
#[derive(Debug)]
pub(crate) struct Leg {
    input: BytesMut,
    assembler: MessageAssembler<LegMessageType>,
    state: State,
    max_frame_size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// The other end has no universe yet.
    Gathering,
    Open,
    Closed,
}

impl Leg {
    /// A leg whose frames have bodies of at most `max_frame_size` bytes.
    pub(crate) fn new(max_frame_size: usize) -> Self {
        Self {
            input: BytesMut::new(),
            assembler: MessageAssembler::new(MAX_HELLO_LEN),
            state: State::Start,
            max_frame_size,
        }
    }

    /// Where to put what is read next, [`READ_SIZE`] bytes at most.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        if self.input.len() == self.input.capacity() {
            self.input.reserve(READ_SIZE);
        }
        &mut self.input
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// What is wrong with what has come.
    pub(crate) fn next(&mut self) -> Result<Option<LegMessage>, Error> {
        loop {
            if self.state == State::Closed {
                let is_empty = self.input.is_empty() && self.assembler.is_empty();
                return if is_empty {
                    Ok(None)
                } else {
                    Err(PeerMisbehaved::DataAfterClose.into())
                };
            }
            if let Some(message) = self.assembler.next()? {
                let message = LegMessage::decode(message)?;
                self.check(&message)?;
                return Ok(Some(message));
            }
            let Some(record) = Record::split_from(&mut self.input)? else {
                return Ok(None);
            };
            record.check_plaintext()?;
            if record.content_type() != ContentType::Handshake {
                return Err(PeerMisbehaved::UnexpectedRecord(record.content_type().name()).into());
            }
            self.assembler.push(record.payload())?;
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] if there was no goodbye.
    pub(crate) fn handle_eof(&self) -> Result<(), Error> {
        match self.state {
            State::Closed => Ok(()),
            _ => Err(Error::Truncated),
        }
    }

    /// At most what this end holds of the other's bytes.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.input.len() + self.assembler.held()
    }

    fn check(&mut self, message: &LegMessage) -> Result<(), Error> {
        self.state = match (self.state, message) {
            (State::Start | State::Gathering, LegMessage::Hello(hello)) => {
                check_hello(hello)?;
                let limit = self.max_frame_size.saturating_add(LEG_FRAME_OVERHEAD);
                self.assembler.set_limit(limit.max(MAX_HELLO_LEN));
                match (self.state, hello.universe_id.is_empty()) {
                    (State::Start, true) => State::Gathering,
                    (_, false) => State::Open,
                    _ => return Err(PeerMisbehaved::UnexpectedMessage("second hello").into()),
                }
            }
            (State::Gathering | State::Open, LegMessage::Frame(frame)) => {
                let limit = self.max_frame_size.saturating_add(ENVELOPE_LEN);
                let length = frame.frame.len();
                if length > limit {
                    return Err(InvalidMessage::MessageTooLong { length, limit }.into());
                }
                self.state
            }
            (State::Gathering | State::Open, LegMessage::Goodbye) => State::Closed,
            (State::Gathering | State::Open, LegMessage::Ping | LegMessage::Pong) => self.state,
            (_, LegMessage::Hello(_)) => {
                return Err(PeerMisbehaved::UnexpectedMessage("second hello").into());
            }
            (_, LegMessage::Frame(_)) => {
                return Err(PeerMisbehaved::UnexpectedMessage("frame").into());
            }
            (_, LegMessage::Goodbye) => {
                return Err(PeerMisbehaved::UnexpectedMessage("goodbye").into());
            }
            (_, LegMessage::Ping) => {
                return Err(PeerMisbehaved::UnexpectedMessage("ping").into());
            }
            (_, LegMessage::Pong) => {
                return Err(PeerMisbehaved::UnexpectedMessage("pong").into());
            }
        };
        Ok(())
    }
}

fn check_hello(hello: &LegHello) -> Result<(), Error> {
    if hello.version != LEG_VERSION {
        return Err(PeerIncompatible::Version(hello.version).into());
    }
    if hello.universe_id.len() > 255 || hello.wanted.len() > MAX_MEMBERS {
        return Err(InvalidMessage::Malformed("hello of a leg").into());
    }
    Ok(())
}

/// Encodes a frame for a leg.
///
/// # Errors
///
/// [`InvalidMessage::MessageTooLong`].
pub(crate) fn encode_frame(
    origin: u16,
    destination: u16,
    frame: Bytes,
) -> Result<Bytes, InvalidMessage> {
    LegMessage::Frame(LegFrame { origin, destination, frame }).encode()
}

/// How much is read at once.
pub(crate) const READ_SIZE: usize = MAX_PLAINTEXT + HEADER_LEN;

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{NO_MEMBER, WantedPlace};

    const LIMIT: usize = 40_000;

    fn hello(universe_id: &[u8]) -> LegMessage {
        LegMessage::Hello(LegHello {
            version: LEG_VERSION,
            universe_id: universe_id.to_vec(),
            member: 1,
            wanted: vec![WantedPlace { member: 0, next: 7 }],
        })
    }

    fn frame(length: usize) -> LegMessage {
        LegMessage::Frame(LegFrame {
            origin: 1,
            destination: NO_MEMBER,
            frame: vec![5; length].into(),
        })
    }

    fn take(leg: &mut Leg) -> Result<Vec<LegMessage>, Error> {
        let mut messages = Vec::new();
        while let Some(message) = leg.next()? {
            messages.push(message);
        }
        Ok(messages)
    }

    fn encode(messages: &[LegMessage]) -> Vec<u8> {
        messages.iter().flat_map(|message| message.encode().unwrap().to_vec()).collect()
    }

    fn receive(messages: &[LegMessage]) -> Result<Vec<LegMessage>, Error> {
        let mut leg = Leg::new(LIMIT);
        leg.input().extend_from_slice(&encode(messages));
        take(&mut leg)
    }

    // MC-03
    #[test]
    fn a_hello_has_its_bytes_in_order() {
        let expected = [
            &[22, 3, 3, 0, 22, 32, 0, 0, 18, 0, 1, 2, b'i', b'd', 0, 1, 10, 0, 0][..],
            &[0, 0, 0, 0, 0, 0, 0, 7],
        ]
        .concat();
        assert_eq!(hello(b"id").encode().unwrap(), expected);
        let expected = [22, 3, 3, 0, 9, 33, 0, 0, 5, 0, 1, 255, 255, 5];
        assert_eq!(frame(1).encode().unwrap()[..], expected);
        for (number, message) in
            (34..).zip([LegMessage::Goodbye, LegMessage::Ping, LegMessage::Pong])
        {
            assert_eq!(message.encode().unwrap()[..], [22, 3, 3, 0, 4, number, 0, 0, 0]);
            let mut long = message.encode().unwrap().to_vec();
            (long[4], long[8]) = (5, 1);
            let mut leg = Leg::new(LIMIT);
            leg.input().extend_from_slice(&[&encode(&[hello(b"id")])[..], &long, &[0]].concat());
            let malformed = matches!(
                take(&mut leg),
                Err(Error::InvalidMessage(InvalidMessage::Malformed(what))) if what.ends_with("of a leg")
            );
            assert!(malformed);
        }
    }

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let (ping, pong, goodbye) = (LegMessage::Ping, LegMessage::Pong, LegMessage::Goodbye);
        let sent =
            [hello(b""), frame(10), ping, hello(b"id"), frame(39_000), pong, frame(1), goodbye];
        let bytes = encode(&sent);
        for size in [1, 3, 1000, 100_000] {
            let mut leg = Leg::new(LIMIT);
            let mut received = Vec::new();
            for piece in bytes.chunks(size) {
                assert_eq!(leg.handle_eof(), Err(Error::Truncated));
                leg.input().extend_from_slice(piece);
                received.extend(take(&mut leg).unwrap());
            }
            assert_eq!(received, sent);
            assert_eq!(leg.handle_eof(), Ok(()));
        }
    }

    #[test]
    fn messages_out_of_place_are_refused() {
        let unexpected = |what| Err(PeerMisbehaved::UnexpectedMessage(what).into());
        assert_eq!(receive(&[frame(1)]), unexpected("frame"));
        assert_eq!(receive(&[LegMessage::Goodbye]), unexpected("goodbye"));
        assert_eq!(receive(&[LegMessage::Ping]), unexpected("ping"));
        assert_eq!(receive(&[LegMessage::Pong]), unexpected("pong"));
        assert_eq!(receive(&[hello(b"id"), hello(b"id")]), unexpected("second hello"));
        assert_eq!(receive(&[hello(b""), hello(b"")]), unexpected("second hello"));
        let closed = [hello(b"id"), LegMessage::Goodbye, frame(1)];
        assert_eq!(receive(&closed), Err(PeerMisbehaved::DataAfterClose.into()));
        let version = LegMessage::Hello(LegHello {
            version: 2,
            universe_id: Vec::new(),
            member: 0,
            wanted: Vec::new(),
        });
        assert_eq!(receive(&[version]), Err(PeerIncompatible::Version(2).into()));
    }

    // MC-02
    #[test]
    fn nothing_long_is_held_before_the_hello_and_nothing_too_long_after_it() {
        let long = |length: u32| {
            let [_, high, middle, low] = length.to_be_bytes();
            [22, 3, 3, 0, 8, 33, high, middle, low, 0, 1, 0, 0]
        };
        for (first, limit) in [(None, MAX_HELLO_LEN), (Some(hello(b"id")), LIMIT + 8)] {
            let mut leg = Leg::new(LIMIT);
            if let Some(first) = first {
                leg.input().extend_from_slice(&first.encode().unwrap());
                take(&mut leg).unwrap();
            }
            let length = 0xff_ffff;
            leg.input().put_slice(&long(length));
            let too_long = InvalidMessage::MessageTooLong { length: length as usize, limit };
            assert_eq!(leg.next(), Err(too_long.into()));
            assert!(leg.held() < 100);
        }
        assert!(receive(&[hello(b"id"), frame(LIMIT + 4)]).is_ok());
        assert!(receive(&[hello(b"id"), frame(LIMIT + 5)]).is_err());
    }

    #[test]
    fn records_of_other_types_are_refused() {
        let mut leg = Leg::new(LIMIT);
        leg.input().put_slice(&[23, 3, 3, 0, 1, 0]);
        assert_eq!(leg.next(), Err(PeerMisbehaved::UnexpectedRecord("application_data").into()));
        let mut leg = Leg::new(LIMIT);
        leg.input().put_slice(b"GET / HTTP/1.1");
        assert_eq!(leg.next(), Err(InvalidMessage::UnknownContentType(b'G').into()));
    }

    proptest! {
        // CH-10
        #[test]
        fn any_bytes_give_messages_an_error_or_a_wish_for_more(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 32_u8..37,
        ) {
            let mut leg = Leg::new(LIMIT);
            let first = hello(b"id").encode().unwrap();
            leg.input().put_slice(&first);
            take(&mut leg).unwrap();
            let mut body = vec![kind, 0, 0, u8::try_from(bytes.len()).unwrap()];
            body.extend_from_slice(&bytes);
            crate::wire::encode_plaintext(ContentType::Handshake, &body, leg.input());
            let _ = take(&mut leg);
            let mut leg = Leg::new(LIMIT);
            leg.input().put_slice(&bytes);
            let _ = take(&mut leg);
        }
    }
}
