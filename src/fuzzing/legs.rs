//! Two members and a relay that have legs with each other, and with a stranger who says what the fuzzer
//! wants: to a member, as a relay, and to the relay.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, WriteHalf, copy, duplex,
        sink,
    },
    time::timeout,
};

use super::{
    Input,
    dmls::{index, sessions},
};
use crate::{
    Multicast, MulticastEvent, MulticastOptions, Relay, RelayOptions, Time,
    wire::{LEG_VERSION, LegFrame, LegHello, LegMessage, NO_MEMBER, Record, WantedPlace},
};

/// Where the frame begins in the record of a LegFrame, behind its envelope and route.
const FRAME_AT: usize = 8;

/// Records that member 1 has sent to member 0.
type Recorded = Arc<Mutex<Vec<Vec<u8>>>>;

/// Whatever a stranger says, the two members go on with each other, and get what they were sent, once
/// and in order.
pub fn legs(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let mut input = Input::new(data);
        let mut world = World::new();
        while !input.is_empty() {
            world.act(&mut input).await;
        }
        world.check().await;
    });
}

struct World {
    members: Vec<Multicast>,
    relay: Relay,
    options: RelayOptions,
    recorded: Recorded,
    /// What the stranger writes to: member 0, member 0 that takes it for a relay, the relay.
    legs: [Option<WriteHalf<DuplexStream>>; 3],
    /// How many messages each has sent, and got from the other one.
    sent: [u8; 2],
    received: [u8; 2],
}

impl World {
    fn new() -> Self {
        let options = RelayOptions {
            max_members: 3,
            kept_bytes: 1 << 16,
            leg_queue: 1 << 16,
            max_frame_size: 8192,
            ..RelayOptions::default()
        };
        let relay = Relay::new(options);
        let of_members = MulticastOptions { leg_input: 1 << 16, ..MulticastOptions::default() };
        // The third one is never there.
        let two = sessions(Time::now()).into_iter().take(2);
        let members: Vec<_> = two.map(|session| Multicast::new(session, of_members)).collect();
        let recorded = Recorded::default();
        let (near, near_end) = duplex(1 << 16);
        let (far, far_end) = duplex(1 << 16);
        members[0].add_leg(index(1), near).expect("it is there");
        members[1].add_leg(index(0), far).expect("it is there");
        let ((near_read, near_write), (far_read, far_write)) =
            (tokio::io::split(near_end), tokio::io::split(far_end));
        for member in &members {
            let (near, far) = duplex(1 << 16);
            member.add_relay(near).expect("it is there");
            let relay = relay.clone();
            tokio::spawn(async move { relay.serve(far).await });
        }
        tokio::spawn(pass(near_read, far_write, Recorded::default()));
        tokio::spawn(pass(far_read, near_write, Arc::clone(&recorded)));
        let legs = [None, None, None];
        Self { members, relay, options, recorded, legs, sent: [0; 2], received: [0; 2] }
    }

    async fn act(&mut self, input: &mut Input<'_>) {
        let operation = input.byte() % 7;
        let leg = usize::from(input.byte() % 3);
        let bytes = match operation {
            0 => {
                let length = usize::from(input.byte());
                input.bytes(length).to_vec()
            }
            1 => hello(input),
            2 => {
                let (origin, destination) = (place(input), place(input));
                let frame = self.recorded(input);
                let (frame, _) = input.part(|| frame);
                let frame = LegFrame { origin, destination, frame: frame.into() };
                encode(&LegMessage::Frame(frame))
            }
            3 => {
                let messages = [LegMessage::Goodbye, LegMessage::Ping, LegMessage::Pong];
                encode(&messages[usize::from(input.byte() % 3)])
            }
            4 => {
                self.legs[leg] = None;
                return;
            }
            5 => {
                let member = usize::from(input.byte() % 2);
                let number = self.sent[member];
                // More would be for another number.
                if let Some(next) = number.checked_add(1) {
                    self.members[member].send(vec![number]).await.expect("a short message");
                    self.sent[member] = next;
                }
                return;
            }
            // Lets the others do something.
            _ => {
                for _ in 0..input.byte() {
                    tokio::task::yield_now().await;
                }
                return;
            }
        };
        let written = self.leg(leg).write_all(&bytes);
        // A party may end the leg, or not read it any more.
        if !matches!(timeout(Duration::from_secs(1), written).await, Ok(Ok(()))) {
            self.legs[leg] = None;
        }
    }

    /// The stranger's end of a leg, a new one if there is none.
    fn leg(&mut self, leg: usize) -> &mut WriteHalf<DuplexStream> {
        self.legs[leg].get_or_insert_with(|| {
            let (near, far) = duplex(1 << 16);
            match leg {
                0 => self.members[0].accept_leg(near).expect("it is there"),
                1 => self.members[0].add_relay(near).expect("it is there"),
                _ => {
                    let relay = self.relay.clone();
                    tokio::spawn(async move { relay.serve(near).await });
                }
            }
            let (mut read, write) = tokio::io::split(far);
            tokio::spawn(async move { copy(&mut read, &mut sink()).await });
            write
        })
    }

    /// A frame of member 1.
    fn recorded(&self, input: &mut Input<'_>) -> Vec<u8> {
        let number = usize::from(input.byte());
        let recorded = self.recorded.lock().expect("nobody has panicked");
        let frames = recorded.iter().filter(|record| record.first() == Some(&33));
        let frames: Vec<_> = frames.filter_map(|record| record.get(FRAME_AT..)).collect();
        frames.get(number % frames.len().max(1)).map_or_else(Vec::new, |frame| frame.to_vec())
    }

    async fn check(&mut self) {
        assert!(self.relay.legs() <= 4 * usize::from(self.options.max_members));
        assert!(self.relay.kept_bytes() <= 3 * (self.options.kept_bytes + 8192 + 256));
        for member in 0..2 {
            let number = self.sent[member];
            if let Some(next) = number.checked_add(1) {
                self.members[member].send(vec![number]).await.expect("a short message");
                self.sent[member] = next;
            }
        }
        for member in 0..2 {
            while self.received[member] < self.sent[1 - member] {
                let event = timeout(Duration::from_secs(20), self.members[member].next_event());
                let event = event.await.expect("a message that was sent does not arrive");
                if let MulticastEvent::Message { from, data } =
                    event.expect("the end").expect("the session lives")
                {
                    assert_eq!(
                        (from, &data[..]),
                        (index(1 - member), &[self.received[member]][..])
                    );
                    self.received[member] += 1;
                }
            }
        }
    }
}

/// Passes records on, and keeps them.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    recorded: Recorded,
) {
    let mut input = BytesMut::new();
    while from.read_buf(&mut input).await.is_ok_and(|length| length > 0) {
        while let Ok(Some(record)) = Record::split_from(&mut input) {
            let mut bytes = record.header().to_vec();
            bytes.extend_from_slice(record.payload());
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            recorded.lock().expect("nobody has panicked").push(record.payload().to_vec());
        }
    }
}

fn hello(input: &mut Input<'_>) -> Vec<u8> {
    let universes: [&[u8]; 3] = [b"universe", b"", b"another"];
    let universe_id = universes[usize::from(input.byte() % 3)].to_vec();
    let member = place(input);
    let count = input.byte() % 4;
    let wanted = (0..count)
        .map(|_| WantedPlace { member: place(input), next: u64::from(input.byte()) })
        .collect();
    let version = LEG_VERSION;
    encode(&LegMessage::Hello(LegHello { version, universe_id, member, wanted }))
}

/// A member, or none.
fn place(input: &mut Input<'_>) -> u16 {
    match input.byte() % 4 {
        3 => NO_MEMBER,
        member => member.into(),
    }
}

fn encode(message: &LegMessage) -> Vec<u8> {
    message.encode().expect("it is short").to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    // CH-10, MC-03, MC-05
    #[test]
    fn random_inputs_find_nothing() {
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state.to_be_bytes()[0]
        };
        for _ in 0..300 {
            let length = usize::from(byte());
            let input: Vec<u8> = (0..length).map(|_| byte()).collect();
            legs(&input);
        }
    }

    #[test]
    fn seeds_find_nothing() {
        for (_, input) in crate::fuzzing::seeds().iter().filter(|(target, _)| *target == "legs") {
            legs(input);
        }
    }
}
