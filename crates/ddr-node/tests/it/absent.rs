//! A node that comes back after its swarm has forgotten what was deleted meanwhile.

use ddr_node::{Node, ReadError};
use ddr_oci::RepositoryName;
use ddr_proto::wire::{NameRecord, SetEntry};
use ddr_store::Store;

use crate::bed::{Bed, Machine, by_tag, eventually, push_image, repository, resolve, tag, within};
use crate::stranger::now_ms;

/// The setting in which a node notes when it was in touch.
const IN_TOUCH: &str = "in-touch";

/// Makes the machine one whose node was last in touch then, in Unix milliseconds.
fn in_touch(machine: &Machine, at_ms: u64) {
    machine.store().set_setting(IN_TOUCH, &at_ms.to_be_bytes()).expect("written");
}

/// The same in 1970.
fn was_away(machine: &Machine) {
    in_touch(machine, 1);
}

/// Makes the machine forget the tombstones that it keeps, as after 7 days.
fn forget_tombstones(machine: &Machine) {
    let store = machine.store();
    let rank = |stamp: u64, writer: &[u8; 32]| {
        let writer = u64::from_be_bytes(*writer.first_chunk().expect("long enough"));
        u128::from(stamp) << 64 | u128::from(writer)
    };
    let names = names_of(&store).into_iter().filter(|record| record.digest.is_none());
    let names: Vec<_> = names
        .map(|record| (*record.key().as_bytes(), rank(record.stamp, &record.writer)))
        .collect();
    let rows = store.sets(1_000, None).expect("read");
    let entries = rows.into_iter().filter_map(|(set, member, row)| {
        let entry = SetEntry::from_bytes(&row).expect("an entry");
        (!entry.is_present()).then(|| (set, member, rank(entry.stamp(), entry.writer())))
    });
    let entries: Vec<_> = entries.collect();
    assert!(!names.is_empty() && !entries.is_empty(), "there are tombstones");
    store.forget_kept(&names, &entries).expect("forgotten");
}

fn names_of(store: &Store) -> Vec<NameRecord> {
    let rows = store.names(1_000, None).expect("read");
    rows.iter().map(|(_, row)| NameRecord::from_bytes(row).expect("a record")).collect()
}

async fn listed(node: &Node, name: &RepositoryName) -> Vec<String> {
    let tags = within(node.tags(name, None, 100)).await.expect("listed").unwrap_or_default().tags;
    tags.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_long_does_not_bring_back_what_was_deleted() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(3).await;
    let name = repository("team/app");
    let stays = push_image(&nodes[0].1, &name, "stays", (1, 100)).await;
    push_image(&nodes[0].1, &name, "goes", (3, 100)).await;
    eventually("all keep both", async || {
        let mut kept = 0;
        for (_, node) in &nodes {
            kept += node.status().await.names;
        }
        kept == 6
    })
    .await;
    let (late, node) = nodes.pop().expect("three");
    within(node.shutdown()).await;
    drop(node);
    assert!(nodes[0].1.delete_manifest(&name, &by_tag("goes")).await.expect("deleted"));
    for (_, node) in &nodes {
        eventually("both keep the tombstone", async || {
            let read = node.manifest(&name, &by_tag("goes")).await;
            matches!(read, Ok(None)) && node.status().await.names == 2
        })
        .await;
    }

    // Everybody forgets it: the two are started again without their tombstones.
    let machines: Vec<Machine> = {
        let mut machines = Vec::new();
        for (machine, node) in nodes {
            within(node.shutdown()).await;
            drop(node);
            machines.push(machine);
        }
        machines
    };
    machines.iter().for_each(forget_tombstones);
    machines.iter().for_each(|machine| in_touch(machine, now_ms()));
    was_away(&late);
    let a = bed.start_alone(&machines[0], &[&machines[1]]).await;
    let b = bed.start_alone(&machines[1], &[&machines[0]]).await;
    eventually("the two are a swarm", async || {
        matches!(a.manifest(&name, &by_tag("goes")).await, Ok(None))
            && matches!(b.manifest(&name, &by_tag("goes")).await, Ok(None))
    })
    .await;

    let c = bed.start(&late, &[&machines[0], &machines[1]]).await;
    eventually("it has compared", async || {
        let none = |read: Result<_, ReadError>| matches!(read, Ok(None));
        none(c.manifest(&name, &by_tag("goes")).await) && c.status().await.names == 1
    })
    .await;
    for node in [&a, &b, &c] {
        assert_eq!(resolve(node, &name, "goes").await, None);
        assert_eq!(resolve(node, &name, "stays").await, Some(stays.manifest));
        assert_eq!(listed(node, &name).await, ["stays"]);
        assert_eq!(node.status().await.names, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_that_was_switched_off_for_long_believes_what_it_kept() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("team/app");
    let image = push_image(&nodes[0].1, &name, "v1", (1, 100)).await;
    let mut machines = Vec::new();
    for (machine, node) in nodes {
        bed.network.kill(machine.addr);
        drop(node);
        machines.push(machine);
    }
    let bed = Bed::new();
    machines.iter().for_each(was_away);
    let mut started = Vec::new();
    for (index, machine) in machines.iter().enumerate() {
        let others: Vec<&Machine> = machines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != index)
            .map(|(_, one)| one)
            .collect();
        started.push(bed.start_alone(machine, &others).await);
    }
    for node in &started {
        eventually("the tag is read again", async || {
            match node.manifest(&name, &by_tag("v1")).await {
                Ok(Some(found)) => found.digest == image.manifest,
                Ok(None) => panic!("a tag was dropped that nobody had deleted"),
                Err(_) => false,
            }
        })
        .await;
        eventually("it is listed again", async || match node.tags(&name, None, 9).await {
            Ok(Some(listed)) => listed.tags == [tag("v1")],
            Ok(None) => panic!("a list was dropped"),
            Err(_) => false,
        })
        .await;
    }
}
