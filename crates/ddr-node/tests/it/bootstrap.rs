//! How nodes find their swarm again: without their bootstrap nodes, and after a partition.

use std::net::SocketAddr;
use std::time::Duration;

use ddr_net::discover::{Discovery, Origin};
use ddr_node::{Node, Rhythm, Sources};
use ddr_proto::wire::Contact;
use tokio::time::{Instant, sleep, timeout};

use crate::bed::{Bed, Machine, eventually, within};

/// Time of the paused clock within which two halves must have become one.
const MERGE_LIMIT: Duration = Duration::from_secs(5 * 60);

fn book(machine: &Machine) -> Sources {
    Sources { book: Some(machine.dir.path().join("peers.json")), ..Sources::default() }
}

async fn alive(node: &Node) -> usize {
    node.peers().await.iter().filter(|peer| peer.alive).count()
}

/// `count` machines whose nodes joined by the first two, and keep a book.
async fn swarm(bed: &Bed, count: u8, rhythm: Rhythm) -> Vec<(Machine, Node)> {
    let mut nodes: Vec<(Machine, Node)> = Vec::new();
    for number in 1..=count {
        let machine = bed.machine(number);
        let first: Vec<&Machine> = nodes.iter().take(2).map(|(other, _)| other).collect();
        let sources = Sources { rhythm, ..book(&machine) };
        let node = bed.start_with(&machine, &first, sources).await;
        within(node.wait_ready()).await;
        nodes.push((machine, node));
    }
    for (_, node) in &nodes {
        eventually("all know each other", async || alive(node).await == usize::from(count) - 1)
            .await;
    }
    nodes
}

/// Waits until each node has every other in its book.
async fn books_are_written(nodes: &[(Machine, Node)]) {
    for (machine, _) in nodes {
        eventually("its book is written", async || {
            std::fs::read_to_string(machine.dir.path().join("peers.json"))
                .is_ok_and(|text| text.matches("heard_ms").count() == nodes.len() - 1)
        })
        .await;
    }
}

/// Starts the machines again, which lost their nodes, with the same two bootstrap nodes as before.
async fn again(bed: &Bed, machines: Vec<Machine>, first: &[&Machine]) -> Vec<(Machine, Node)> {
    let mut nodes = Vec::new();
    for machine in machines {
        let sources = book(&machine);
        let node = bed.start_with(&machine, first, sources).await;
        nodes.push((machine, node));
    }
    nodes
}

/// Ends all nodes at once, as a power cut does.
fn cut(bed: &Bed, nodes: Vec<(Machine, Node)>) -> Vec<Machine> {
    nodes.iter().for_each(|(machine, _)| bed.network.kill(machine.addr));
    nodes.into_iter().map(|(machine, _)| machine).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_that_lost_all_its_bootstrap_nodes_heals() {
    let bed = Bed::new();
    let mut nodes = swarm(&bed, 6, Rhythm::default()).await;
    books_are_written(&nodes).await;
    let rest = nodes.split_off(2);
    let gone = cut(&bed, nodes);
    for (_, node) in &rest {
        eventually("the dead are known as dead", async || alive(node).await == 3).await;
    }
    // The rest loses its power, too; when it comes back, nobody is where the token says.
    let machines = cut(&bed, rest);
    let first: Vec<&Machine> = gone.iter().collect();
    let rest = again(&bed, machines, &first).await;
    for (_, node) in &rest {
        within(node.wait_ready()).await;
        eventually("they found each other", async || alive(node).await == 3).await;
    }
    // A node that has nothing but a list finds them as well.
    let late = bed.machine(7);
    let places = rest.iter().map(|(machine, _)| machine.addr.into()).collect();
    let discovery = Discovery { places, ..Discovery::default() };
    let node = bed.start_with(&late, &first, Sources { discovery, ..Sources::default() }).await;
    within(node.wait_ready()).await;
    eventually("it knows all four", async || alive(&node).await == 4).await;
    let status = node.status().await;
    let row = |origin| status.bootstrap.iter().find(|row| row.source == origin);
    assert_eq!(row(Origin::Token).map(|row| (row.found, row.answered)), Some((2, 0)));
    let listed = row(Origin::Static).expect("the list is a source");
    assert!(listed.found == 4 && listed.answered > 0, "{listed:?}");
    assert_eq!(status.swarm_size, 5);
}

/// Whoever of the book still lives is asked soon, however many of it are gone: the sources would need
/// many rounds for that, of which this node makes one.
#[tokio::test(flavor = "multi_thread")]
async fn all_peers_of_the_book_are_asked_at_the_start() {
    let bed = Bed::new();
    let (alone, other) = (bed.machine(1), bed.machine(2));
    let _other = bed.start(&other, &[]).await;
    let heard_ms = crate::stranger::now_ms();
    let gone = (3..=80).map(|number| bed.machine(number));
    let known = gone.chain([other]).map(|machine| {
        let contact =
            Contact { id: machine.node_id(), addrs: vec![machine.addr], zone: String::new() };
        serde_json::json!({ "contact": contact, "heard_ms": heard_ms })
    });
    let text = serde_json::json!({ "format": 1, "peers": known.collect::<Vec<_>>() }).to_string();
    std::fs::write(alone.dir.path().join("peers.json"), text).expect("written");
    let never = Duration::from_secs(24 * 60 * 60);
    let rhythm = Rhythm { first_wait: never, last_wait: never, look_around: never };
    let node = bed.start_with(&alone, &[], Sources { rhythm, ..book(&alone) }).await;
    eventually("it meets the one that lives", async || alive(&node).await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_book_is_no_obstacle() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 3, Rhythm::default()).await;
    books_are_written(&nodes).await;
    let machines = cut(&bed, nodes);
    std::fs::write(machines[2].dir.path().join("peers.json"), b"{\"format\":1,").expect("written");
    let nodes = again(&bed, machines, &[]).await;
    for (_, node) in &nodes {
        eventually("they found each other", async || alive(node).await == 2).await;
    }
}

/// A swarm of 12 is cut into halves for half an hour; then the network is whole again. Answers how
/// long it took until every node knew every other, or `None` if that did not happen in time.
async fn torn_and_whole_again(rhythm: Rhythm) -> Option<Duration> {
    let bed = Bed::new();
    let nodes = swarm(&bed, 12, rhythm).await;
    let addrs: Vec<SocketAddr> = nodes.iter().map(|(machine, _)| machine.addr).collect();
    bed.network.partition(&[&addrs[..6], &addrs[6..]]);
    sleep(Duration::from_secs(30 * 60)).await;
    for (_, node) in &nodes {
        assert_eq!(node.peers().await.len(), 5, "the other half is forgotten");
    }
    bed.network.heal();
    let healed = Instant::now();
    let whole = async {
        for (_, node) in &nodes {
            while alive(node).await < 11 {
                sleep(Duration::from_secs(1)).await;
            }
        }
    };
    timeout(MERGE_LIMIT, whole).await.ok().map(|()| healed.elapsed())
}

#[tokio::test(start_paused = true)]
async fn two_halves_of_a_torn_swarm_merge_by_themselves() {
    let took = torn_and_whole_again(Rhythm::default()).await;
    let took = took.expect("the halves become one");
    println!("one swarm again after {} s", took.as_secs());
}

#[tokio::test(start_paused = true)]
async fn without_looking_around_they_would_not() {
    let never = Duration::from_secs(24 * 60 * 60);
    let rhythm = Rhythm { look_around: never, ..Rhythm::default() };
    assert_eq!(torn_and_whole_again(rhythm).await, None);
}
