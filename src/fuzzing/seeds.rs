//! Inputs for the fuzzer to begin with. Some hold genuine messages of this process: those are
//! valid for an hour.

use bytes::BytesMut;

use super::{CLIENT, CLIENT_HELLO, CLIENT_PEM, SERVER_NAME, answer, groups};
use crate::wire::{
    ContentType, ENVELOPE_LEN, GroupParameters, InitiatorParameters, encode_plaintext,
};

/// The name of a target, and an input for it.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let hello = &CLIENT_HELLO[..];
    let key_package = &hello[ENVELOPE_LEN..];
    let mut hello_record = BytesMut::new();
    encode_plaintext(ContentType::Handshake, hello, &mut hello_record);
    let welcome = answer(hello).1;
    let commit = groups().0.start_update().expect("an update");
    let initiator_parameters = InitiatorParameters {
        cipher_suites: vec![3, 1, 0x0a0a],
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        server_name: SERVER_NAME.into(),
        max_message_size: 1 << 16,
    };
    let group_parameters = GroupParameters {
        client_hello_hash: vec![1; 32],
        alpn: b"h2".to_vec(),
        max_message_size: 1 << 16,
    };
    let line = CLIENT.identity.public_line();
    let key = CLIENT.identity.public_key();
    vec![
        ("record", hello_record.to_vec()),
        ("record", [&b"\x15\x03\x03\x00\x02\x01\x00"[..], b"\x17\x03\x03\x00\x03abc"].concat()),
        ("alert", vec![1, 0]),
        ("alert", vec![2, 40]),
        ("envelope", fragments(hello, &[1, 2, 3, 100])),
        ("envelope", fragments(&[4, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 1, 7], &[17])),
        ("message", [&[1], key_package].concat()),
        ("message", vec![4, 0, 0, 0, 0, 0, 0, 0, 2]),
        ("parameters", initiator_parameters.encode().expect("valid")),
        ("parameters", group_parameters.encode().expect("valid")),
        ("text", CLIENT_PEM.into()),
        ("text", format!("# keys\n{line} comment\r\n\n{line}\n").into()),
        ("text", key.to_base64().into()),
        ("text", key.as_bytes().to_vec()),
        ("text", SERVER_NAME.into()),
        ("key_package", [&[0], key_package].concat()),
        ("key_package", vec![1, 0, 7, 0, 2]),
        ("key_package", vec![1, 3, 20, 0, 30, 0]),
        ("welcome", [&[0], &welcome[..]].concat()),
        ("welcome", vec![1]),
        ("welcome", vec![1, 0, 60, 0, 1]),
        ("update", [&[0, 0], &commit[..]].concat()),
        ("update", vec![0, 1]),
        ("update", vec![1, 1]),
        ("update", vec![1, 1, 0, 40, 0, 1]),
        ("connection_responder", [&[0, 0], &hello_record[..]].concat()),
        ("connection_responder", vec![7, 1]),
        ("connection_responder", vec![0, 1, 1, 0, 0, 7, 21, 3, 3, 0, 2, 1, 0]),
        ("connection_initiator", vec![0, 1]),
        ("connection_initiator", vec![3, 1, 0, 90, 0, 1]),
        ("connection_initiator", vec![0, 0, 21, 3, 3, 0, 2, 2, 40]),
        // Two writes; a rekey by each side, crossing; a close.
        ("connection_established", vec![0, 100, 0, 1, 200, 3, 14, 2, 3, 8, 30, 0, 14, 4, 14, 5]),
        // A rekey whose answer is cut, delayed and edited.
        ("connection_established", vec![2, 12, 0, 50, 0, 9, 20, 0, 16, 0, 7, 0, 1, 14]),
        // The last record of an epoch is lost.
        ("connection_established", vec![2, 12, 0, 50, 0, 9, 20, 0, 16, 2, 0, 0, 255, 255, 14]),
        // Records that change places, come again and come back.
        ("connection_established", vec![0, 5, 0, 0, 5, 0, 18, 12, 20, 22]),
        // Time passes, and the policy wants an update.
        ("connection_established", vec![0, 5, 0, 14, 6, 255, 255, 14, 1, 255, 15, 14]),
        // Data; an update; one of the victim, answered.
        ("connection_insider", vec![0, 6, 3, 1, 2, 3, 0, 10, 0, 0, 1, 14, 0, 0, 9, 0]),
        ("connection_insider", vec![1, 6, 3, 1, 2, 3, 0, 10, 0, 0, 1, 14, 0, 0, 9, 0]),
        // Crossing updates, the wrong epoch, a repeated update.
        ("connection_insider", vec![0, 1, 10, 0, 0, 14, 0, 12, 0, 13, 1]),
        ("connection_insider", vec![1, 1, 10, 0, 2, 14, 0, 12, 0, 13, 1]),
        // Messages in fragments; padding; records of full size; alerts.
        ("connection_insider", vec![0, 9, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 3, 8, 0, 0, 64]),
        ("connection_insider", vec![1, 4, 4, 1, 0, 21, 0, 4, 3, 2, 80, 21, 15, 2, 23, 3]),
        // Nothing is edited; a bit of the request, of the response, of the confirmation.
        ("resumption", vec![0]),
        ("resumption", vec![0, 1, 0, 100, 0, 1]),
        ("resumption", vec![0, 0, 1, 0, 100, 0, 1]),
        ("resumption", vec![0, 0, 0, 1, 0, 10, 0, 1]),
        // The end of a request is lost, with the early data; a response is doubled.
        ("resumption", vec![0, 1, 4, 0, 2]),
        ("resumption", vec![0, 0, 1, 3, 0, 0, 0, 4]),
        ("resumption", vec![1, 1, 0, 100, 0, 1]),
        // Messages, updates, commits with them, a second, everything delivered.
        ("dmls", vec![0, 9, 0, 1, 9, 0, 2, 0, 3, 12, 2, 1, 3, 12, 0, 80, 1, 3, 12]),
        // A frame of Mallory's that is edited; one of another member, passed on; one that is no frame.
        ("dmls", vec![4, 0, 0, 0, 60, 0, 1, 0, 9, 0, 5, 1, 0, 0, 200, 0, 1, 6, 4, 6, 0, 0, 0]),
        // Acknowledgements, places in the future, commits that import what is not there.
        ("dmls", vec![7, 7, 0, 3, 1, 2, 3, 8, 3, 0, 9, 1, 0, 2, 0, 3, 12, 9, 0, 1, 0, 9, 1, 1]),
        // A hello and frames of member 1 that are edited, over a leg; the same as a relay, and to a relay.
        ("legs", vec![5, 0, 0, 1, 1, 0, 1, 0, 0, 2, 0, 1, 0, 0, 9, 1, 0, 20, 0, 1, 0, 3, 2, 5, 1]),
        ("legs", vec![0, 1, 1, 3, 1, 0, 0, 1, 2, 1, 255, 0, 0, 5, 0, 2, 1, 255, 0, 1, 1, 3, 1]),
        ("legs", vec![0, 2, 1, 2, 0, 0, 0, 2, 2, 2, 255, 0, 3, 5, 0, 2, 2, 2, 0, 0, 3, 6, 0, 0]),
        // Questions for frames, of Mallory's own and of others.
        ("dmls", vec![0, 9, 0, 1, 10, 0, 0, 255, 11, 1, 0, 255, 11, 9, 0, 1, 3, 12]),
    ]
}

/// The input of `envelope` that cuts `bytes` into pieces of these lengths and the rest.
fn fragments(bytes: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut input = Vec::new();
    let mut rest = bytes;
    for &length in lengths.iter().chain([&bytes.len()]) {
        let (fragment, left) = rest.split_at(length.min(rest.len()));
        let length = u16::try_from(fragment.len()).expect("a short message");
        input.extend_from_slice(&length.to_le_bytes());
        input.extend_from_slice(fragment);
        rest = left;
    }
    input
}
