//! Members in one process.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::try_join;
use mls_channel::{
    Config, DmlsEvent, DmlsKeyPackages, DmlsMember, DmlsPolicy, DmlsSession, DmlsUniverse,
    Identity, LegEnd, LegPeer, MemberIndex, MlsAcceptor, MlsConnector, MlsStream, Multicast,
    MulticastConfig, MulticastEvent, MulticastOptions, PinnedKeys, ServerName, Time,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, duplex},
    sync::oneshot,
};
use tokio_util::io::InspectReader;

/// Acknowledges and asks soon, and does nothing else by itself.
pub(crate) fn policy() -> DmlsPolicy {
    let mut policy = DmlsPolicy::default();
    policy.update_interval = None;
    policy.acknowledge_after = Duration::from_millis(50);
    policy.acknowledge_updates_after = Duration::from_millis(20);
    policy.resend_after = Duration::from_millis(20);
    policy
}

pub(crate) fn configs(count: usize) -> Vec<Arc<Config>> {
    let identities: Vec<_> =
        (0..count).map(|i| Identity::generate(&format!("member{i}")).unwrap()).collect();
    let pins: String = identities.iter().map(|identity| identity.public_line() + "\n").collect();
    let config = |identity: Identity| {
        let service = PinnedKeys::parse(&pins).unwrap();
        let config = Config::builder().identity(identity).authentication_service(service);
        Arc::new(config.build().unwrap())
    };
    identities.into_iter().map(config).collect()
}

/// The sessions of a universe that the application defines.
pub(crate) fn sessions(configs: &[Arc<Config>], policy: DmlsPolicy) -> Vec<DmlsSession> {
    let now = Time::now();
    let made: Vec<_> =
        configs.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap()).collect();
    let members = (0..)
        .zip(&made)
        .map(|(place, key_packages): (u8, _)| DmlsMember {
            key_packages: key_packages.frame().clone(),
            send_group_id: vec![b'g', place],
        })
        .collect();
    let universe = DmlsUniverse::new(b"universe".to_vec(), members);
    configs
        .iter()
        .zip(made)
        .map(|(config, made)| {
            DmlsSession::create(Arc::clone(config), policy, &universe, made, now).unwrap()
        })
        .collect()
}

/// Members without legs.
pub(crate) fn members(count: usize, options: MulticastOptions) -> Vec<Multicast> {
    let sessions = sessions(&configs(count), policy());
    sessions.into_iter().map(|session| Multicast::new(session, options)).collect()
}

pub(crate) fn config_of(config: &Arc<Config>) -> MulticastConfig {
    MulticastConfig::new(Arc::clone(config)).policy(policy())
}

pub(crate) fn index(place: usize) -> MemberIndex {
    MemberIndex(u16::try_from(place).unwrap())
}

/// A leg between each two.
pub(crate) fn mesh(members: &[Multicast]) {
    for a in 0..members.len() {
        for b in a + 1..members.len() {
            link(members, a, b);
        }
    }
}

pub(crate) fn link(members: &[Multicast], a: usize, b: usize) {
    let (near, far) = pipe();
    members[a].add_leg(index(b), near).unwrap();
    members[b].add_leg(index(a), far).unwrap();
}

pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(64 * 1024)
}

/// A channel, from the one that has `a` to the one that has `b`.
pub(crate) async fn channel(
    a: &Arc<Config>,
    b: &Arc<Config>,
) -> (MlsStream<DuplexStream>, MlsStream<DuplexStream>) {
    let (near, far) = pipe();
    let name = ServerName::new(b.identity().name()).unwrap();
    let connect = MlsConnector::from(Arc::clone(a)).connect(name, near);
    try_join(connect, MlsAcceptor::from(Arc::clone(b)).accept(far)).await.unwrap()
}

/// A stream, and what tells when it was dropped.
pub(crate) fn watched<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    io: IO,
) -> (impl AsyncRead + AsyncWrite + Send + Unpin + 'static, Gone) {
    let (held, gone) = oneshot::channel::<()>();
    let hold = move |_: &[u8]| {
        let _held = &held;
    };
    (InspectReader::new(io, hold), Gone(gone))
}

/// Tells that something was dropped.
pub(crate) struct Gone(pub(crate) oneshot::Receiver<()>);

impl Gone {
    pub(crate) async fn wait(self) {
        let gone = soon(self.0).await;
        assert!(gone.is_err());
    }
}

/// Only a test that fails waits so long.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not come")
}

/// The next event that `select` wants.
pub(crate) async fn wait_for<T>(
    member: &mut Multicast,
    mut select: impl FnMut(MulticastEvent) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            let event = member.next_event().await.expect("the end").unwrap();
            if let Some(found) = select(event) {
                return found;
            }
        }
    };
    soon(wait).await
}

/// The next message.
pub(crate) async fn message(member: &mut Multicast) -> (usize, Vec<u8>) {
    wait_for(member, |event| match event {
        MulticastEvent::Message { from, data } => Some((usize::from(from.0), data.to_vec())),
        MulticastEvent::Universe(DmlsEvent::Refused { member, error }) => {
            panic!("{member:?} was refused: {error}")
        }
        _ => None,
    })
    .await
}

/// So many messages of one member, which have to come in order.
pub(crate) async fn messages(member: &mut Multicast, of: usize, count: usize) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    while received.len() < count {
        let (from, data) = message(member).await;
        if from == of {
            received.push(data);
        }
    }
    received
}

pub(crate) async fn leg_up(member: &mut Multicast) -> LegPeer {
    wait_for(member, |event| match event {
        MulticastEvent::LegUp { peer } => Some(peer),
        _ => None,
    })
    .await
}

pub(crate) async fn leg_down(member: &mut Multicast) -> (LegPeer, LegEnd) {
    wait_for(member, |event| match event {
        MulticastEvent::LegDown { peer, end } => Some((peer, end)),
        _ => None,
    })
    .await
}

/// Everyone sends, and everyone gets it.
pub(crate) async fn assert_all_talk(members: &mut [Multicast], word: &str) {
    for (place, member) in members.iter().enumerate() {
        member.send(format!("{word} {place}")).await.unwrap();
    }
    let count = members.len();
    for (place, member) in members.iter_mut().enumerate() {
        let mut missing: BTreeSet<usize> = (0..count).filter(|other| *other != place).collect();
        while !missing.is_empty() {
            let (from, data) = message(member).await;
            assert_eq!(data, format!("{word} {from}").into_bytes());
            assert!(missing.remove(&from), "{from} came twice");
        }
    }
}
