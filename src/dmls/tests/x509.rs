//! Members with X.509 credentials.

use super::*;
use crate::{
    AuthenticationService,
    auth::AuthenticationError,
    certificate::tests::{Authority, ExtendedKeyUsagePurpose, named, serial},
};

fn config(identity: &Identity, service: impl AuthenticationService + 'static) -> Arc<Config> {
    let builder = Config::builder()
        .identity(identity.clone())
        .authentication_service(service)
        .session_store(MemoryStore::default());
    Arc::new(builder.build().unwrap())
}

fn configs(root: &Authority, identities: &[Identity]) -> Vec<Arc<Config>> {
    let service = root.verifier().build().unwrap();
    identities.iter().map(|identity| config(identity, service.clone())).collect()
}

fn members(root: &Authority, count: usize) -> Vec<Identity> {
    (0..count).map(|i| root.identify(&named(&[&format!("member{i}.example")]))).collect()
}

// DM-02
#[test]
fn certified_members_update_crash_and_agree() {
    let root = Authority::root("root");
    let middle = root.intermediate("middle");
    let setup = Setup { stores: true, ..Setup::default() };
    let mut world = setup.create_with(configs(&root, &members(&middle, 3)));
    world.deliver_all();
    for at in 0..3 {
        for member in 0..3 {
            let session = &world.members[at].session;
            let (_, known) = session.members().nth(member).unwrap();
            assert_eq!(known.name(), format!("member{member}.example"));
            assert_eq!(known.certificates().len(), 2);
        }
    }
    for round in 0..2_u8 {
        for member in 0..3 {
            world.act(member, DmlsSession::update_and_commit).unwrap();
            world.protect(member, &[round]);
        }
        world.pass(Duration::from_secs(25));
        for member in 0..3 {
            world.restore(member);
        }
        world.pass(Duration::from_secs(25));
        world.agree(&[0, 1, 2]);
    }
}

// DM-03
#[test]
fn a_universe_of_certified_members_is_declared_over_the_wire() {
    let root = Authority::root("root");
    operations::declare_over_the_wire(configs(&root, &members(&root, 3)));
}

// DM-02
#[test]
fn members_that_are_not_believed_are_refused() {
    let root = Authority::root("root");
    let mut identities = members(&root, 2);
    let stranger = Authority::root("other").identify(&named(&["member1.example"]));
    let mut params = named(&["member1.example"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let only_server = root.identify(&params);
    let basic = Identity::generate("member1.example").unwrap();
    for (other, error) in [
        (stranger, AuthenticationError::UnknownIssuer),
        (only_server, AuthenticationError::WrongPurpose),
        (basic, AuthenticationError::UnsupportedCredential("basic")),
    ] {
        identities[1] = other;
        assert_eq!(create(&configs(&root, &identities)).unwrap_err(), error.into());
    }
}

// DM-02: a member with other certificates in its Welcome than in its KeyPackages, for the same key.
#[test]
fn a_welcome_with_other_certificates_is_refused() {
    let root = Authority::root("root");
    let identities = members(&root, 2);
    let renewed = root.certify(&named(&["member1.example"]), &identities[1]);
    let now = start();
    let honest = configs(&root, &identities);
    let packages: Vec<_> =
        honest.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap()).collect();
    let universe = universe(&packages);
    let renewed = configs(&root, &[renewed]).remove(0);
    let policy = DmlsPolicy::manual();
    let mut packages = packages.into_iter();
    let own = packages.next().unwrap();
    let mut first =
        DmlsSession::create(Arc::clone(&honest[0]), policy, &universe, own, now).unwrap();
    let own = packages.next().unwrap();
    let mut second = DmlsSession::create(renewed, policy, &universe, own, now).unwrap();
    let (_, welcome) = second.poll_frame().unwrap().unwrap();
    first.handle_frame(now, index(1), welcome).unwrap();
    let refused = std::iter::from_fn(|| first.poll_event()).find_map(|event| match event {
        DmlsEvent::Refused { error, .. } => Some(error),
        _ => None,
    });
    assert_eq!(refused, Some(PeerMisbehaved::UnexpectedUniverse("other members").into()));
}

// DM-02
#[test]
fn a_restored_member_asks_again() {
    let root = Authority::root("root");
    let params = named(&["member1.example"]);
    let identities = [members(&root, 1).remove(0), root.identify(&params)];
    let service = |serials: &[u64]| {
        let list = root.revoke(serials);
        root.verifier().revocation_lists_pem(&list).unwrap().build().unwrap()
    };
    let shared = Arc::new(std::sync::RwLock::new(service(&[])));
    let configs = identities.iter().map(|identity| config(identity, Arc::clone(&shared)));
    let setup = Setup { stores: true, ..Setup::default() };
    let mut world = setup.create_with(configs.collect());
    world.deliver_all();
    world.restore(0);
    *shared.write().unwrap() = service(&[serial(&params)]);
    let node = &world.members[0];
    let config = Arc::clone(&node.config);
    let error = DmlsSession::restore(config, node.policy, b"universe", world.now).unwrap_err();
    assert_eq!(error, AuthenticationError::Revoked.into());
}

/// What the first member makes of the universe.
fn create(configs: &[Arc<Config>]) -> Result<DmlsSession, Error> {
    let now = start();
    let packages: Result<Vec<_>, _> =
        configs.iter().map(|config| DmlsKeyPackages::new(config, now)).collect();
    let mut packages = packages?;
    let universe = universe(&packages);
    let own = packages.swap_remove(0);
    DmlsSession::create(Arc::clone(&configs[0]), DmlsPolicy::manual(), &universe, own, now)
}

fn universe(packages: &[DmlsKeyPackages]) -> DmlsUniverse {
    let members = packages.iter().zip(0_u8..).map(|(packages, place)| DmlsMember {
        key_packages: packages.frame().clone(),
        send_group_id: vec![place],
    });
    DmlsUniverse::new("universe", members.collect())
}
