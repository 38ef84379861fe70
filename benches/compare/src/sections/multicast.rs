//! The multicast mode: one member sends over TCP to eight.

use std::{io, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, future::try_join_all};
use mls_channel::{
    DmlsSession, MemberIndex, Multicast, MulticastEvent, MulticastOptions, MulticastReceiver,
    MulticastSender, SlowLeg, wire::encode_frame,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    dmls::{UNIVERSE_ID, Universe},
    two_threads, warm_up,
};
use crate::{
    measure::{Cost, Effort, Samples, Stopwatch},
    report::{Goal, Report},
    support::{Result, traffic::tcp_pair},
};

const LEGS: u16 = 8;
/// Bytes of a message, and of a write of the peer.
const SIZE: usize = 64 << 10;

/// A member with legs to all others, who have no legs with each other.
struct Star {
    sender: MulticastSender,
    receivers: Vec<MulticastReceiver>,
    /// So that nobody has left.
    _members: Vec<MulticastSender>,
}

/// Bytes of messages in a second and leg.
pub(super) fn multicast(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = two_threads()?;
    let messages = effort.amount(1024);
    let mut star = runtime.block_on(Star::new())?;
    let [ours, drained, plain, parallel] = effort.alternate([
        &mut || runtime.block_on(star.timed_send(messages)),
        &mut || runtime.block_on(timed_drain(messages)),
        &mut || runtime.block_on(timed_plain(messages, false)),
        &mut || runtime.block_on(timed_plain(messages, true)),
    ])?;
    let rate = |samples: &Samples| (messages * SIZE) as f64 / 1e9 / samples.wall();
    let name = "multicast, 64 KiB to 8 legs / plain TCP";
    report.add(name, "GB/s", rate(&ours), rate(&plain), Goal::AtLeast(0.5));
    let name = "the same, legs that nobody verifies / plain TCP";
    report.add(name, "GB/s", rate(&drained), rate(&plain), Goal::None);
    let name = "multicast, 64 KiB to 8 legs / plain TCP with a task for each leg";
    report.add(name, "GB/s", rate(&ours), rate(&parallel), Goal::None);
    let cost = |samples: &Samples| samples.cpu() / messages as f64 * 1e6;
    let name = "multicast, processor of all for a message / plain TCP";
    report.add(name, "us", cost(&ours), cost(&plain), Goal::None);
    Ok(())
}

impl Star {
    async fn new() -> Result<Self> {
        let sessions = Universe::new(usize::from(LEGS) + 1, usize::from(LEGS) + 1)?.sessions;
        let mut members = sessions.into_iter().map(|session| Multicast::new(session, options()));
        let (sender, mut events) = members.next().ok_or("no members")?.into_split();
        let (mut others, mut receivers) = (Vec::new(), Vec::new());
        for (member, place) in members.zip(1..) {
            let (near, far) = tcp_pair().await?;
            sender.add_leg(MemberIndex(place), near)?;
            member.add_leg(MemberIndex(0), far)?;
            let (other, receiver) = member.into_split();
            others.push(other);
            receivers.push(receiver);
        }
        wait_for_legs(&mut events).await?;
        tokio::spawn(async move { while events.next_event().await.is_some() {} });
        Ok(Self { sender, receivers, _members: others })
    }

    async fn timed_send(&mut self, messages: usize) -> Result<Cost> {
        self.send(warm_up(messages)).await?;
        let stopwatch = Stopwatch::start();
        self.send(messages).await?;
        Ok(stopwatch.stop())
    }

    /// Sends, and waits until every member has got it.
    async fn send(&mut self, messages: usize) -> Result<()> {
        let receive = |mut receiver: MulticastReceiver| async move {
            let mut missing = messages;
            while missing > 0 {
                match receiver.next_event().await.ok_or("the end")?? {
                    MulticastEvent::Message { data, .. } if data.len() == SIZE => missing -= 1,
                    MulticastEvent::LegUp { .. } | MulticastEvent::Universe(_) => {}
                    event => return Err(format!("{event:?}").into()),
                }
            }
            Result::Ok(receiver)
        };
        let receiving: Vec<_> =
            self.receivers.drain(..).map(|receiver| tokio::spawn(receive(receiver))).collect();
        feed(self.sender.clone(), messages).await?;
        for receiver in receiving {
            self.receivers.push(receiver.await??);
        }
        Ok(())
    }
}

/// The pace is that of the slowest leg, as it is with plain TCP.
fn options() -> MulticastOptions {
    let mut options = MulticastOptions::default();
    options.slow_leg = SlowLeg::Wait;
    options
}

async fn wait_for_legs(events: &mut MulticastReceiver) -> Result<()> {
    let mut up = 0;
    while up < LEGS {
        let event = events.next_event().await.ok_or("the end")??;
        up += u16::from(matches!(event, MulticastEvent::LegUp { .. }));
    }
    Ok(())
}

async fn feed(mut sender: MulticastSender, messages: usize) -> Result<()> {
    let data = Bytes::from(vec![0x5a; SIZE]);
    for _ in 0..messages {
        sender.feed(data.clone()).await?;
    }
    Ok(SinkExt::<Bytes>::flush(&mut sender).await?)
}

/// What the sender alone can do: the others say who they are, and throw away what they read.
async fn timed_drain(messages: usize) -> Result<Cost> {
    let mut universe = Universe::new(usize::from(LEGS) + 1, 1)?;
    let session: DmlsSession = universe.sessions.pop().ok_or("no members")?;
    let (sender, mut events) = Multicast::new(session, options()).into_split();
    let mut reading = Vec::new();
    for place in 1..=LEGS {
        let (near, mut far) = tcp_pair().await?;
        sender.add_leg(MemberIndex(place), near)?;
        far.write_all(&hello(place)?).await?;
        reading.push(tokio::spawn(drain(far)));
    }
    wait_for_legs(&mut events).await?;
    tokio::spawn(async move { while events.next_event().await.is_some() {} });
    let stopwatch = Stopwatch::start();
    feed(sender.clone(), messages).await?;
    sender.leave().await;
    for read in reading {
        if read.await?? < messages * SIZE {
            return Err("not everything has come".into());
        }
    }
    Ok(stopwatch.stop())
}

/// A LegHello that asks for everything (docs/protocol.md).
fn hello(member: u16) -> Result<Bytes> {
    let mut body = BytesMut::new();
    body.put_slice(&[0, 1, u8::try_from(UNIVERSE_ID.len())?]);
    body.put_slice(UNIVERSE_ID.as_bytes());
    body.put_u16(member);
    body.put_u8(0);
    let mut message = BytesMut::new();
    message.put_u32(32 << 24 | u32::try_from(body.len())?);
    message.put_slice(&body);
    let mut records = BytesMut::new();
    encode_frame(&message, &mut records);
    Ok(records.freeze())
}

/// How many bytes come until the end.
async fn drain(mut io: TcpStream) -> io::Result<usize> {
    let mut buffer = vec![0; SIZE];
    let mut total = 0;
    loop {
        match io.read(&mut buffer).await? {
            0 => return Ok(total),
            length => total += length,
        }
    }
}

/// One task writes the same bytes to all, or a task for each leg.
async fn timed_plain(messages: usize, parallel: bool) -> Result<Cost> {
    let data: Arc<[u8]> = vec![0x5a; SIZE].into();
    let (mut writers, mut reading) = (Vec::new(), Vec::new());
    for _ in 0..LEGS {
        let (near, far) = tcp_pair().await?;
        writers.push(near);
        reading.push(tokio::spawn(drain(far)));
    }
    let stopwatch = Stopwatch::start();
    let write = move |mut writer: TcpStream| {
        let data = Arc::clone(&data);
        async move {
            for _ in 0..messages {
                writer.write_all(&data).await?;
            }
            writer.shutdown().await
        }
    };
    if parallel {
        let tasks = writers.into_iter().map(|writer| tokio::spawn(write(writer)));
        try_join_all(tasks).await?.into_iter().collect::<io::Result<()>>()?;
    } else {
        tokio::spawn(try_join_all(writers.into_iter().map(write))).await??;
    }
    for read in reading {
        if read.await?? != messages * SIZE {
            return Err("not everything has come".into());
        }
    }
    Ok(stopwatch.stop())
}
