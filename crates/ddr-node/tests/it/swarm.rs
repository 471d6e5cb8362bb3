//! Pieces of one blob from many nodes at once.

use ddr_net::GetError;
use ddr_node::{Bandwidth, MIN_RATE, Node};
use ddr_oci::{Digest, PieceChain, RepositoryName};
use ddr_proto::id::Key;
use ddr_proto::wire::SignedChain;
use futures_util::StreamExt;

use crate::bed::{
    Bed, Machine, announced, content, drain, eventually, pull, push_blob, repository, within,
};

const PIECE: usize = 64 * 1024;

/// Every node but the first pulls the blob at the same time.
async fn pull_everywhere(
    nodes: &[(Machine, Node)],
    name: &RepositoryName,
    digest: &Digest,
) -> Vec<Vec<u8>> {
    let pulls = nodes[1..].iter().map(|(_, node)| {
        let (node, name, digest) = (node.clone(), name.clone(), *digest);
        tokio::spawn(async move { pull(&node, &name, &digest).await })
    });
    let mut pulled = Vec::new();
    for pull in pulls.collect::<Vec<_>>() {
        pulled.push(pull.await.expect("no panic"));
    }
    pulled
}

async fn read(body: &mut ddr_net::ContentBody) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(part) = within(body.next()).await {
        bytes.extend_from_slice(&part.expect("a body"));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_gives_pieces_and_its_chain_where_the_blob_is_linked() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let node = bed.start(&machine, &[]).await;
    let name = repository("pieces");
    let bytes = content(70, 300_000);
    let digest = push_blob(&node, &name, &bytes).await;
    let client = bed.client(2);
    let path = ddr_net::blob_path(&digest, Some(&name));
    let last = 4 * PIECE as u64;
    for range in [(0, PIECE as u64), (last, 300_000)] {
        let wanted = Some((range.0, Some(range.1)));
        let mut piece = within(client.get(machine.addr, None, &path, wanted)).await.expect("given");
        assert_eq!((piece.size, piece.start), (300_000, range.0));
        assert!(read(&mut piece).await == bytes[range.0 as usize..range.1 as usize]);
    }
    // What is no piece is given too: peers of older versions ask so.
    let odd = client.get(machine.addr, None, &path, Some((5, Some(100_000))));
    assert!(read(&mut within(odd).await.expect("given")).await == bytes[5..100_000]);

    let any = ddr_net::any_piece_path(&digest, &name);
    for index in 0..5 {
        let given = client.get_any_piece(machine.addr, None, &any);
        let mut piece = within(given).await.expect("a source gives each piece once");
        let start = index * PIECE;
        assert_eq!(piece.start, start as u64, "in order");
        assert!(read(&mut piece).await == bytes[start..bytes.len().min(start + PIECE)]);
    }
    let more = within(client.get_any_piece(machine.addr, None, &any)).await;
    assert_eq!(more.expect_err("all are out"), GetError::NotFound);

    // Who is refused costs nothing of the bandwidth.
    node.set_bandwidth(Bandwidth { upload: Some(MIN_RATE), download: None });
    for _ in 0..20 {
        let more = within(client.get_any_piece(machine.addr, None, &any)).await;
        assert_eq!(more.expect_err("all are out"), GetError::NotFound);
    }
    node.set_bandwidth(Bandwidth::default());

    let path = ddr_net::chain_path(&digest, &name);
    let mut body = within(client.get(machine.addr, None, &path, None)).await.expect("given");
    let signed = SignedChain::decode(&read(&mut body).await).expect("a chain");
    signed.verify(&Key::of_content(&digest)).expect("signed");
    assert_eq!(signed.signer_id().to_string(), machine.id());
    let chain = PieceChain::from_bytes(&signed.chain).expect("a chain");
    for index in 0..5 {
        let piece = &bytes[index * PIECE..bytes.len().min((index + 1) * PIECE)];
        assert!(chain.accepts(&digest, index, piece), "piece {index}");
    }

    let other = repository("other");
    for path in [
        ddr_net::blob_path(&digest, Some(&other)),
        ddr_net::chain_path(&digest, &other),
        ddr_net::any_piece_path(&digest, &other),
    ] {
        let given = within(client.get(machine.addr, None, &path, Some((0, Some(65_536))))).await;
        assert_eq!(given.expect_err("not linked there"), GetError::NotFound, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_pull_at_once_for_little_more_than_one_copy() {
    let nodes = Bed::new().swarm(6).await;
    let name = repository("together");
    let bytes = content(71, 64 << 20);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    for (_, node) in &nodes[1..] {
        announced(node, &digest, 1).await;
    }
    let before = nodes[0].1.status().await.traffic.served_bytes;
    for pulled in pull_everywhere(&nodes, &name, &digest).await {
        assert!(pulled == bytes, "the same bytes");
    }
    let served = nodes[0].1.status().await.traffic.served_bytes - before;
    let copies = served as f64 / bytes.len() as f64;
    println!("the source gave {copies:.3} copies to 5 nodes");
    assert!(copies <= 1.5, "{copies}");
    for (machine, node) in &nodes[1..] {
        let status = node.status().await;
        println!(
            "{}: fetched {:.3}, served {:.3} copies",
            machine.addr,
            status.traffic.fetched_bytes as f64 / bytes.len() as f64,
            status.traffic.served_bytes as f64 / bytes.len() as f64,
        );
        assert!(status.sources.iter().all(|source| source.strikes == 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_after_a_little_more_than_one_copy_is_not_missed() {
    let bed = Bed::new();
    let nodes = bed.swarm(6).await;
    let name = repository("orphans");
    let bytes = content(72, 16 << 20);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    for (_, node) in &nodes[1..] {
        announced(node, &digest, 1).await;
    }
    nodes[0].0.gate.close_after(bytes.len() + bytes.len() / 10);
    let (gate, network, addr) = (nodes[0].0.gate.clone(), bed.network.clone(), nodes[0].0.addr);
    let killer = tokio::spawn(async move {
        gate.reached().await;
        network.kill(addr);
    });
    for pulled in pull_everywhere(&nodes, &name, &digest).await {
        assert!(pulled == bytes, "the same bytes");
    }
    println!("the source was killed: {}", killer.is_finished());
    killer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_wrong_pieces_is_struck_and_no_client_sees_one() {
    let bed = Bed::new();
    let nodes = bed.swarm(4).await;
    let name = repository("wrong");
    let bytes = content(73, 4 << 20);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    push_blob(&nodes[1].1, &name, &bytes).await;
    for (_, node) in &nodes[2..] {
        announced(node, &digest, 2).await;
    }
    nodes[1].0.corrupt_all(&digest);
    for pulled in pull_everywhere(&nodes[1..], &name, &digest).await {
        assert!(pulled == bytes, "the same bytes");
    }
    let mut strikes = 0;
    for (_, node) in &nodes[2..] {
        for source in node.status().await.sources {
            let is_liar = source.node_id == nodes[1].0.id();
            assert!(is_liar || source.strikes == 0, "only the liar: {source:?}");
            strikes += source.strikes;
        }
    }
    assert!(strikes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_after_a_restart() {
    let bed = Bed::new();
    let name = repository("resume");
    let bytes = content(74, 8 << 20);
    let part = bytes.len() / 2;
    let (digest, (holder, _node), machine) = bed.killed_in_mid_fetch(&name, &bytes, part).await;
    let reader = bed.start(&machine, &[&holder]).await;
    announced(&reader, &digest, 1).await;
    assert!(pull(&reader, &name, &digest).await == bytes);
    let fetched = reader.status().await.traffic.fetched_bytes as f64 / bytes.len() as f64;
    println!("after the restart {fetched:.3} of the blob came");
    assert!(fetched < 0.75, "{fetched}");
}

/// Reads `range` as a client does that asks for a part.
async fn read_part(
    node: &Node,
    name: &RepositoryName,
    digest: &Digest,
    range: std::ops::Range<u64>,
) -> Vec<u8> {
    let blob = within(node.open_blob_part(name, digest)).await.expect("read").expect("there");
    within(blob.wait_for(range.clone())).await.expect("it comes");
    let mut stream = blob.stream(range);
    let mut bytes = Vec::new();
    while let Some(part) = within(stream.next()).await {
        bytes.extend_from_slice(&part.expect("no error"));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_part_no_more_is_fetched_than_is_read_and_a_little_ahead() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let (reader, name) = (&nodes[2].1, repository("parts"));
    let bytes = content(76, 32 << 20);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    push_blob(&nodes[1].1, &name, &bytes).await;
    announced(reader, &digest, 2).await;
    for range in [20_000_000..21_000_000, 100..200, 33_000_000..bytes.len() as u64] {
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(read_part(reader, &name, &digest, range.clone()).await == wanted, "{range:?}");
    }
    let fetched = reader.status().await.traffic.fetched_bytes as usize;
    println!("{fetched} bytes were fetched for 1.55 MB");
    assert!(fetched < 3_000_000, "{fetched}");
    assert_eq!(reader.status().await.blobs, 0);
    assert!(pull(reader, &name, &digest).await == bytes, "then all of it");
    let fetched = reader.status().await.traffic.fetched_bytes as usize;
    // Less than the parts: some pieces are asked for twice in the end.
    assert!(fetched < bytes.len() + 1_500_000, "what was here did not come again: {fetched}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_one_node_alone_vouches_for_is_proven_by_the_whole() {
    let nodes = Bed::new().swarm(2).await;
    let (reader, name) = (&nodes[1].1, repository("one-voucher"));
    let bytes = content(77, 4 << 20);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    announced(reader, &digest, 1).await;
    let range = 1_000_000..1_000_010;
    assert!(read_part(reader, &name, &digest, range).await == bytes[1_000_000..1_000_010]);
    eventually("it is stored", async || reader.status().await.blobs == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_asked_for_first() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let name = repository("range-first");
    let bytes = content(75, 32 << 20);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    announced(&nodes[1].1, &digest, 1).await;
    let blob = within(nodes[1].1.open_blob(&name, &digest)).await.expect("read").expect("there");
    let from = blob.size() - (4 << 20);
    let mut stream = blob.stream(from..blob.size());
    let first = within(stream.next()).await;
    let first = first.expect("more comes").expect("no error");
    assert!(bytes[from as usize..].starts_with(&first));
    drop((stream, blob));
    eventually("it is stored all the same", async || nodes[1].1.status().await.blobs == 1).await;
}

/// At the least limit the blob would take 80 s, longer than the test waits.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_bandwidth_hold_back_and_can_be_lifted() {
    let slow = Some(MIN_RATE);
    for limit in [
        [Bandwidth { upload: slow, download: None }, Bandwidth::default()],
        [Bandwidth::default(), Bandwidth { upload: None, download: slow }],
    ] {
        let nodes = Bed::new().swarm(2).await;
        let (holder, reader) = (&nodes[0].1, &nodes[1].1);
        let name = repository("slow");
        let bytes = content(75, 80 * PIECE);
        let digest = push_blob(holder, &name, &bytes).await;
        announced(reader, &digest, 1).await;
        holder.set_bandwidth(limit[0]);
        reader.set_bandwidth(limit[1]);
        let pulling = tokio::spawn({
            let (reader, name) = (reader.clone(), name.clone());
            async move { pull(&reader, &name, &digest).await }
        });
        let fetched = async || reader.status().await.traffic.fetched_bytes;
        eventually("a piece is here", async || fetched().await > 0).await;
        assert!(fetched().await < bytes.len() as u64 / 2, "{limit:?}");
        holder.set_bandwidth(Bandwidth::default());
        reader.set_bandwidth(Bandwidth::default());
        assert!(within(pulling).await.expect("no panic") == bytes, "{limit:?}");
        let strikes = reader.status().await.sources.iter().map(|s| s.strikes).sum::<u32>();
        assert_eq!(strikes, 0, "a limit is nobody's fault");
    }
}

/// The first blob takes up the window of both for longer than a fetch waits for which nothing is under
/// way.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_waits_for_those_of_its_repository_that_came_before() {
    let nodes = Bed::new().swarm(2).await;
    let (holder, reader) = (&nodes[0].1, &nodes[1].1);
    let name = repository("row");
    let (first, second) = (content(78, 32 << 20), content(79, 20 << 20));
    let digests = [push_blob(holder, &name, &first).await, push_blob(holder, &name, &second).await];
    for digest in &digests {
        announced(reader, digest, 1).await;
    }
    reader.set_bandwidth(Bandwidth { upload: None, download: Some(4 << 20) });
    let opened = within(reader.open_blob(&name, &digests[0])).await.expect("read").expect("there");
    let then =
        within(reader.open_blob(&name, &digests[1])).await.expect("it waits").expect("there");
    reader.set_bandwidth(Bandwidth::default());
    for (blob, bytes) in [(opened, first), (then, second)] {
        let (got, error) = drain(&blob).await;
        assert!(error.is_none() && got == bytes, "{error:?}");
    }
}
