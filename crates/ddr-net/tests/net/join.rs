//! From a token to a membership, and every way in which that fails.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ddr_net::{
    Client, ClientLimits, JoinError, JoinToken, ServeLimits, Swarm, SwarmError, TlsCarrier,
    TokenError, serve,
};
use tokio::sync::watch;

use crate::support::{CALL_TIMEOUT, Gate, Home, TestService, envelope, tls, within};

const TTL: Duration = Duration::from_secs(60);

async fn gate() -> (Home, Gate) {
    let founder = Home::new();
    let swarm = founder.found_swarm();
    let gate = Gate::open(&founder.identity, &swarm).await;
    (founder, gate)
}

fn one_line(error: &JoinError, wanted: &str) {
    let line = error.to_string();
    assert!(line.contains(wanted) && line.lines().count() == 1, "{line}");
}

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_joined_node_is_a_member_and_can_admit_the_next() {
    let (_founder, gate) = gate().await;
    let token = gate.swarm.create_token(vec![nobody(), gate.addr], TTL).unwrap();
    let token: JoinToken = token.to_string().parse().unwrap();
    let second = Home::new();
    let own = within(Swarm::join(second.dir.path(), &second.identity, &token)).await.unwrap();
    assert_eq!(own.swarm_id(), gate.swarm.swarm_id());
    let mode = second.dir.path().join("swarm.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // It speaks to the founder as a member ...
    let client = Client::new(tls(&second.identity, &own).await, ClientLimits::default());
    let call = envelope(&second.identity);
    within(client.call(gate.addr, None, &call, CALL_TIMEOUT)).await.unwrap();
    // ... and after a restart, without a token, admits a third, who speaks to the founder too.
    let own = Swarm::load(second.dir.path(), &second.identity).unwrap().unwrap();
    let next_gate = Gate::open(&second.identity, &own).await;
    let third = Home::new();
    let third_swarm = next_gate.admit(&third).await;
    let client = Client::new(tls(&third.identity, &third_swarm).await, ClientLimits::default());
    let call = envelope(&third.identity);
    within(client.call(gate.addr, None, &call, CALL_TIMEOUT)).await.unwrap();
}

#[tokio::test]
async fn joining_again_changes_nothing_and_asks_nobody() {
    let (_founder, gate) = gate().await;
    let home = Home::new();
    gate.admit(&home).await;
    let before = std::fs::read(home.dir.path().join("member.pem")).unwrap();
    let token = gate.swarm.create_token(vec![nobody()], TTL).unwrap();
    within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap();
    assert_eq!(std::fs::read(home.dir.path().join("member.pem")).unwrap(), before);
    assert_eq!(gate.service.joins.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_directory_of_another_swarm_is_left_alone() {
    let (_founder, gate) = gate().await;
    let home = Home::new();
    let own = home.found_swarm();
    let token = gate.swarm.create_token(vec![gate.addr], TTL).unwrap();
    let error = within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap_err();
    assert!(matches!(error, JoinError::Token(TokenError::WrongSwarm { .. })), "{error}");
    one_line(&error, "empty data directory");
    one_line(&error, &own.swarm_id().to_string());
    let kept = Swarm::load(home.dir.path(), &home.identity).unwrap().unwrap();
    assert_eq!(kept.swarm_id(), own.swarm_id());
    assert_eq!(gate.service.joins.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_that_leads_to_another_swarm_says_so() {
    let (_one, gate) = gate().await;
    let foreign = Home::new().found_swarm();
    let token = foreign.create_token(vec![gate.addr], TTL).unwrap();
    let home = Home::new();
    let error = within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap_err();
    assert!(matches!(error, JoinError::Token(TokenError::WrongSwarm { .. })), "{error}");
    one_line(&error, &gate.addr.to_string());
    assert_eq!(gate.service.joins.load(Ordering::SeqCst), 0);
    assert!(Swarm::load(home.dir.path(), &home.identity).unwrap().is_none());
}

#[tokio::test]
async fn an_expired_token_is_refused_before_a_dial() {
    let swarm = Home::new().found_swarm();
    let past = SystemTime::now() - Duration::from_secs(5);
    let token = swarm.create_token_until(vec![nobody()], past).unwrap();
    let home = Home::new();
    let error = within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap_err();
    assert!(matches!(error, JoinError::Token(TokenError::Expired)), "{error}");
    one_line(&error, "ddr token create");
}

#[tokio::test]
async fn a_revoked_token_is_refused_in_the_handshake() {
    let founder = Home::new();
    let swarm = founder.found_swarm();
    let revoked = Arc::new(AtomicBool::new(false));
    let flag = revoked.clone();
    let listen = "127.0.0.1:0".parse().unwrap();
    let check = Arc::new(move |_: &[u8; 16]| flag.load(Ordering::SeqCst));
    let carrier =
        Arc::new(TlsCarrier::bind(listen, &founder.identity, &swarm, check).await.unwrap());
    let addr = ddr_net::Carrier::local_addr(&*carrier);
    let service = Arc::new(TestService { swarm: Some(swarm.clone()), ..TestService::default() });
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(carrier, service.clone(), ServeLimits::default(), stopped));

    let token = swarm.create_token(vec![addr], TTL).unwrap();
    let first = Home::new();
    within(Swarm::join(first.dir.path(), &first.identity, &token)).await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    let second = Home::new();
    let error = within(Swarm::join(second.dir.path(), &second.identity, &token)).await.unwrap_err();
    assert!(matches!(error, JoinError::Denied { .. }), "{error}");
    one_line(&error, "revoked");
    assert_eq!(service.joins.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nobody_at_home_names_every_address() {
    let swarm = Home::new().found_swarm();
    let addrs = vec![nobody(), nobody()];
    let token = swarm.create_token(addrs.clone(), TTL).unwrap();
    let home = Home::new();
    let error = within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap_err();
    for addr in addrs {
        one_line(&error, &addr.to_string());
    }
    assert!(matches!(error, JoinError::Unreachable { .. }));
}

#[tokio::test]
async fn a_busy_member_says_so() {
    let founder = Home::new();
    let swarm = founder.found_swarm();
    let carrier = tls(&founder.identity, &swarm).await;
    let token = swarm.create_token(vec![carrier.local_addr()], TTL).unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(carrier, Arc::new(TestService::default()), ServeLimits::default(), stopped));
    let home = Home::new();
    let error = within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap_err();
    one_line(&error, "try again");
}

#[tokio::test]
async fn a_token_needs_one_to_eight_addresses() {
    let swarm = Home::new().found_swarm();
    for count in [0, 9] {
        let made = swarm.create_token(vec![nobody(); count], TTL);
        assert!(matches!(made, Err(SwarmError::Certificate(_))), "{count}");
    }
}
